"""The asynchronous client: the same methods, awaited."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx

from query_api.curation_form import CurationAnswer, CurationVersion, DryRunAnswer
from query_api.models import (
    DeadList,
    DocumentAnswer,
    EncoderList,
    IndexAnswer,
    IngestAnswer,
    JobAnswer,
    RetryAnswer,
)
from query_api.queries_form import AddedQueries, FrequentQueries, RemovedQueries
from query_api.search.across_form import AcrossAnswer
from query_api.search.answer import SearchAnswer
from query_api.search.batch_form import BatchedAnswer
from query_api.search.request import Mode, SearchRequest
from query_api.suggest_form import SuggestAnswer
from query_api.talk_form import ChaptersAnswer
from services.access.client import bearer, own_bearer
from services.curation.rules import Rules
from services.errors import SparsewellError
from services.index_spec import IndexSpec
from services.web.answers import away, checked_address
from sparsewell.client import operations
from sparsewell.client.operations import ChapterFile, Document, Operation
from sparsewell.client.patience import Patience

T = TypeVar("T")


class AsyncClient:
    """A client of one API; for one event loop.

    `timeout` (seconds) bounds each request. `patience` (seconds) is how long a call is repeated while the API is
    overloaded or away; 0: the first such error is raised. `key`: of the API; None: SPARSEWELL_API_KEY, if it is set. A
    proxy that is set for the outside world is not asked. Every method raises the errors of `services.errors` with the
    API's own codes, and BackendUnavailable (`api_unavailable`) when nothing answers. Raises ConfigurationError
    (`bad_address`).
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8010",
        *,
        timeout: float = 30.0,
        patience: float = 0.0,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> None:
        self.address = str(checked_address(address))
        self._patience = patience
        self._http = httpx.AsyncClient(
            base_url=self.address,
            timeout=httpx.Timeout(timeout, connect=min(5.0, timeout)),
            trust_env=False,
            headers={**(own_bearer() if key is None else bearer(key)), **(headers or {})},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Gives the connections back."""
        await self._http.aclose()

    async def search(self, index: str, query: str | SearchRequest, **options: Any) -> SearchAnswer:
        """One search; `options` are the members of SearchRequest (mode, size, filter, ...)."""
        return await self.run(operations.search(index, query, options))

    async def pages(self, index: str, query: str | SearchRequest, **options: Any) -> AsyncIterator[SearchAnswer]:
        """All pages of a search, over the index as it is now, whatever is written meanwhile."""
        cursor: str | None = "*"
        while cursor is not None:
            answer = await self.search(index, query, **operations.page(query, options, cursor))
            yield answer
            cursor = answer.cursor

    async def search_across(self, indexes: Iterable[str], query: str | SearchRequest, **options: Any) -> AcrossAnswer:
        """One search over several indexes, as if they were one; `options` as of `search`."""
        return await self.run(operations.search_across(indexes, query, options))

    async def pages_across(
        self, indexes: Sequence[str], query: str | SearchRequest, **options: Any
    ) -> AsyncIterator[AcrossAnswer]:
        """All pages of it, as `pages`."""
        cursor: str | None = "*"
        while cursor is not None:
            answer = await self.search_across(indexes, query, **operations.page(query, options, cursor))
            yield answer
            cursor = answer.cursor

    async def batch(self, searches: Iterable[Mapping[str, Any]]) -> list[BatchedAnswer]:
        """Searches (members of SearchRequest with `index`) in one request; each has an answer or its own problem."""
        return await self.run(operations.batch(searches))

    async def suggest(self, index: str, typed: str, **options: Any) -> SuggestAnswer:
        """What completes `typed`, the best first; `options`: `size`, `fuzzy`, `filter` (whose titles may be named)."""
        return await self.run(operations.suggest(index, typed, options))

    async def create_index(self, index: str, spec: IndexSpec | Mapping[str, Any] | None = None) -> IndexAnswer:
        """Raises Conflict (`index_exists`)."""
        return await self.run(operations.create_index(index, spec))

    async def get_index(self, index: str) -> IndexAnswer:
        """An index and its documents by state. Raises NotFound (`index_not_found`)."""
        return await self.run(operations.get_index(index))

    async def list_indexes(self) -> list[IndexAnswer]:
        return await self.run(operations.list_indexes())

    async def delete_index(self, index: str) -> None:
        return await self.run(operations.delete_index(index))

    async def list_encoders(self) -> EncoderList:
        """The encoders whose query tables the service has."""
        return await self.run(operations.list_encoders())

    async def add(self, index: str, documents: Iterable[Document], *, key: str | None = None) -> IngestAnswer:
        """Adds or replaces documents in one request. What is `accepted` is on disk; what was refused is `rejected`.

        Raises InvalidInput (`no_document_accepted`, its `extra["rejected"]` says why) when none was accepted.
        `key`: an idempotency key, with which the same documents may be sent again.
        """
        return await self.run(operations.add(index, documents, key))

    async def add_all(
        self, index: str, documents: Iterable[Document], *, batch: int = 500
    ) -> AsyncIterator[IngestAnswer]:
        """As `add`, in requests of `batch` documents, however many there are; an answer for each."""
        waiting = iter(documents)
        while group := list(islice(waiting, batch)):
            yield await self.add(index, group)

    async def put_document(
        self, index: str, document_id: str, document: Document, *, key: str | None = None
    ) -> IngestAnswer:
        """Adds or replaces one document: `text`, and if it has them `title`, `metadata` and `version`."""
        return await self.run(operations.put_document(index, document_id, document, key))

    async def get_document(self, index: str, document_id: str, *, segments: bool = False) -> DocumentAnswer:
        """A document and how far it is; of talk with its segments, if asked. Raises NotFound (`document_not_found`)."""
        return await self.run(operations.get_document(index, document_id, segments))

    async def get_chapters(self, index: str, document_id: str) -> ChaptersAnswer:
        """The chapters of a talk and who made them. Raises NotFound (`document_not_found`, `not_talk`)."""
        return await self.run(operations.get_chapters(index, document_id))

    async def export_chapters(self, index: str, document_id: str, form: ChapterFile) -> str:
        """The chapters of a talk as a file. Raises NotFound (`no_chapters`), InvalidInput (`not_for_youtube`)."""
        return await self.run(operations.export_chapters(index, document_id, form))

    async def delete_document(self, index: str, document_id: str, *, version: int | None = None) -> None:
        return await self.run(operations.delete_document(index, document_id, version))

    async def get_job(self, job: str) -> JobAnswer:
        """What became of the documents of a request."""
        return await self.run(operations.get_job(job))

    async def wait(self, job: str, *, seconds: float = 60.0, every: float = 0.5) -> JobAnswer:
        """The job once it is finished. Raises BackendUnavailable (`job_unfinished`) after `seconds`."""
        end = time.monotonic() + seconds
        while not (found := await self.get_job(job)).finished:
            if time.monotonic() + every > end:
                raise operations.unfinished(found, seconds)
            await asyncio.sleep(every)
        return found

    async def list_dead(self, index: str, *, size: int = 20, cursor: str | None = None) -> DeadList:
        """Documents that could not be encoded, the latest first."""
        return await self.run(operations.list_dead(index, size, cursor))

    async def retry_dead(
        self, index: str, ids: Sequence[str] | None = None, *, cursor: str | None = None
    ) -> RetryAnswer:
        """Gives dead documents another round of attempts; without `ids` all of them."""
        return await self.run(operations.retry_dead(index, ids, cursor))

    async def get_curation(self, index: str, *, version: int | None = None) -> CurationAnswer:
        """The rules of an index, or an earlier version; version 0: it has none.

        Raises NotFound (`index_not_found`, `curation_version_not_found`).
        """
        return await self.run(operations.get_curation(index, version))

    async def put_curation(
        self,
        index: str,
        rules: Rules | Mapping[str, Any],
        *,
        note: str = "",
        replaces: int | Literal["*"] | None = None,
    ) -> CurationAnswer:
        """Replaces the rules of an index. `replaces`: the version that was read, `*` for any; None: there are none yet.

        Raises Conflict (`stale_curation`) when somebody else was faster, InvalidInput and TooLarge for bad rules.
        """
        return await self.run(operations.put_curation(index, rules, note, replaces))

    async def list_curation_versions(self, index: str) -> list[CurationVersion]:
        """The versions that are kept, the newest first."""
        return await self.run(operations.list_curation_versions(index))

    async def dry_run_curation(
        self,
        index: str,
        rules: Rules | Mapping[str, Any],
        queries: Iterable[str],
        *,
        mode: Mode = "hybrid",
        size: int = 10,
    ) -> DryRunAnswer:
        """Which of some queries other rules would answer differently; nothing is stored."""
        return await self.run(operations.dry_run_curation(index, rules, queries, mode, size))

    async def list_queries(self, index: str, *, size: int = 100) -> FrequentQueries:
        """The frequent queries of an index that are kept, those that are asked most nowadays first."""
        return await self.run(operations.list_queries(index, size))

    async def add_queries(self, index: str, times: Mapping[str, int]) -> AddedQueries:
        """Counts queries that were asked elsewhere, each with how often: 1,000 in one request at most.

        Raises InvalidInput (`query_not_learnable`, its `extra["position"]` says which) and then counts none.
        """
        return await self.run(operations.add_queries(index, times))

    async def delete_queries(self, index: str, query: str | None = None, *, everything: bool = False) -> RemovedQueries:
        """Removes one frequent query, or with `everything` all of them."""
        return await self.run(operations.delete_queries(index, query, everything))

    async def run(self, operation: Operation[T]) -> T:
        """Sends an operation, as often as patience lasts, and reads its answer."""
        arguments = operation.arguments()
        patience = Patience(self._patience)
        while True:
            try:
                return operation.read(await self._sent(arguments))
            except SparsewellError as error:
                delay = patience.delay(operation, error)
            await asyncio.sleep(delay)

    async def _sent(self, arguments: dict[str, Any]) -> httpx.Response:
        try:
            return await self._http.request(**arguments)
        except httpx.HTTPError as error:
            raise away(self.address, error) from None
