"""Clients of the sparsewell API. `client.py` is generated from `async_client.py`: see `make client`."""

from asyncio import sleep
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice
from time import monotonic
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx

from sparsewell_client import operations
from sparsewell_client.curation import CurationAnswer, CurationVersion, DryRunAnswer, Rules
from sparsewell_client.documents import (
    ChaptersAnswer,
    DeadLetterList,
    DocumentAnswer,
    IngestAnswer,
    JobAnswer,
    RetryAnswer,
)
from sparsewell_client.errors import SparsewellError, unreachable
from sparsewell_client.indexes import EncoderList, IndexAnswer, IndexSpec
from sparsewell_client.operations import ChapterFile, Document, Operation, Retry, checked_address, key_headers
from sparsewell_client.search_answer import (
    AddedQueries,
    BatchedAnswer,
    FrequentQueries,
    MultiIndexAnswer,
    RemovedQueries,
    SearchAnswer,
    SuggestAnswer,
)
from sparsewell_client.search_request import Mode, SearchRequest

T = TypeVar("T")


class AsyncClient:
    """Client of one API. `Client` may be shared between threads, `AsyncClient` belongs to one event loop.

    `timeout`: limit of each request, in seconds. `retry_for`: how long a call is repeated while the API is overloaded
    or unreachable, in seconds; 0: never. `key`: the API key; None: the key in SPARSEWELL_API_KEY, if set. Proxies in
    the environment are ignored. Methods raise the errors of `sparsewell_client.errors` with the API's codes, and
    BackendUnavailable (`api_unavailable`) when the API does not answer. Raises ConfigurationError (`bad_address`).
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8010",
        *,
        timeout: float = 30.0,
        retry_for: float = 0.0,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> None:
        self.address = checked_address(address)
        self._retry_for = retry_for
        self._http = httpx.AsyncClient(
            base_url=self.address,
            timeout=httpx.Timeout(timeout, connect=min(5.0, timeout)),
            trust_env=False,
            headers={**key_headers(key), **(headers or {})},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def search(self, index: str, query: str | SearchRequest, **options: Any) -> SearchAnswer:
        """Search an index. `options`: members of SearchRequest (mode, size, filter, ...)."""
        return await self.run(operations.search(index, query, options))

    async def pages(self, index: str, query: str | SearchRequest, **options: Any) -> AsyncIterator[SearchAnswer]:
        """Yield all pages of a search over the index as it is now; later writes do not change them."""
        cursor: str | None = "*"
        while cursor is not None:
            answer = await self.search(index, query, **operations.page(query, options, cursor))
            yield answer
            cursor = answer.cursor

    async def search_across(
        self, indexes: Iterable[str], query: str | SearchRequest, **options: Any
    ) -> MultiIndexAnswer:
        """Search several indexes as one. `options`: as for `search`."""
        return await self.run(operations.search_across(indexes, query, options))

    async def pages_across(
        self, indexes: Sequence[str], query: str | SearchRequest, **options: Any
    ) -> AsyncIterator[MultiIndexAnswer]:
        """Yield all pages of a search over several indexes, as `pages`."""
        cursor: str | None = "*"
        while cursor is not None:
            answer = await self.search_across(indexes, query, **operations.page(query, options, cursor))
            yield answer
            cursor = answer.cursor

    async def batch(self, searches: Iterable[Mapping[str, Any]]) -> list[BatchedAnswer]:
        """Send several searches in one request. Each has members of SearchRequest and `index` or `indexes`."""
        return await self.run(operations.batch(searches))

    async def suggest(self, index: str, typed: str, **options: Any) -> SuggestAnswer:
        """Return completions of `typed`, best first. `options`: `size`, `fuzzy`, `filter` (documents of titles)."""
        return await self.run(operations.suggest(index, typed, options))

    async def create_index(self, index: str, spec: IndexSpec | Mapping[str, Any] | None = None) -> IndexAnswer:
        """Create an index. Raises Conflict (`index_exists`)."""
        return await self.run(operations.create_index(index, spec))

    async def get_index(self, index: str) -> IndexAnswer:
        """Return an index and its document counts. Raises NotFound (`index_not_found`)."""
        return await self.run(operations.get_index(index))

    async def list_indexes(self) -> list[IndexAnswer]:
        """Return all indexes that the key may see."""
        return await self.run(operations.list_indexes())

    async def delete_index(self, index: str) -> None:
        """Delete an index and its documents. Raises NotFound (`index_not_found`)."""
        return await self.run(operations.delete_index(index))

    async def list_encoders(self) -> EncoderList:
        """Return the encoders whose query tables the API has."""
        return await self.run(operations.list_encoders())

    async def add(self, index: str, documents: Iterable[Document], *, key: str | None = None) -> IngestAnswer:
        """Add or replace documents in one request. `accepted` documents are durable, `rejected` ones have a reason.

        Raises InvalidInput (`no_document_accepted`; `extra["rejected"]` has the reasons) when all are rejected.
        `key`: an idempotency key; the same documents may then be sent again.
        """
        return await self.run(operations.add(index, documents, key))

    async def add_all(
        self, index: str, documents: Iterable[Document], *, batch: int = 500
    ) -> AsyncIterator[IngestAnswer]:
        """Add any number of documents in requests of `batch` documents; yield the answer to each request."""
        waiting = iter(documents)
        while group := list(islice(waiting, batch)):
            yield await self.add(index, group)

    async def put_document(
        self, index: str, document_id: str, document: Document, *, key: str | None = None
    ) -> IngestAnswer:
        """Add or replace one document: `text`, optionally `title`, `metadata` and `version`."""
        return await self.run(operations.put_document(index, document_id, document, key))

    async def get_document(self, index: str, document_id: str, *, segments: bool = False) -> DocumentAnswer:
        """Return a document and its state. `segments`: of talk. Raises NotFound (`document_not_found`)."""
        return await self.run(operations.get_document(index, document_id, segments))

    async def get_chapters(self, index: str, document_id: str) -> ChaptersAnswer:
        """Return the chapters of a talk. Raises NotFound (`document_not_found`, `not_talk`)."""
        return await self.run(operations.get_chapters(index, document_id))

    async def export_chapters(self, index: str, document_id: str, form: ChapterFile) -> str:
        """Export the chapters of a talk. Raises NotFound (`no_chapters`), InvalidInput (`not_for_youtube`)."""
        return await self.run(operations.export_chapters(index, document_id, form))

    async def delete_document(self, index: str, document_id: str, *, version: int | None = None) -> None:
        """Delete a document. `version`: do nothing if a newer version is stored."""
        return await self.run(operations.delete_document(index, document_id, version))

    async def get_job(self, job: str) -> JobAnswer:
        """Return an ingestion job and the states of its documents."""
        return await self.run(operations.get_job(job))

    async def wait(self, job: str, *, seconds: float = 60.0, every: float = 0.5) -> JobAnswer:
        """Return the job when it is finished. Raises BackendUnavailable (`job_unfinished`) after `seconds`."""
        end = monotonic() + seconds
        while not (answer := await self.get_job(job)).finished:
            if monotonic() + every > end:
                raise operations.unfinished(answer, seconds)
            await sleep(every)
        return answer

    async def list_dead_letters(self, index: str, *, size: int = 20, cursor: str | None = None) -> DeadLetterList:
        """Return a page of dead letters (documents that could not be encoded), latest first."""
        return await self.run(operations.list_dead_letters(index, size, cursor))

    async def retry_dead_letters(
        self, index: str, ids: Sequence[str] | None = None, *, cursor: str | None = None
    ) -> RetryAnswer:
        """Retry dead letters; without `ids`: all of them."""
        return await self.run(operations.retry_dead_letters(index, ids, cursor))

    async def list_dead(self, index: str, *, size: int = 20, cursor: str | None = None) -> DeadLetterList:
        """Deprecated: the former name of `list_dead_letters`."""
        return await self.list_dead_letters(index, size=size, cursor=cursor)

    async def retry_dead(
        self, index: str, ids: Sequence[str] | None = None, *, cursor: str | None = None
    ) -> RetryAnswer:
        """Deprecated: the former name of `retry_dead_letters`."""
        return await self.retry_dead_letters(index, ids, cursor=cursor)

    async def get_curation(self, index: str, *, version: int | None = None) -> CurationAnswer:
        """Return the rules of an index, or an earlier version of them. Version 0: it has none.

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
        """Replace the rules of an index. `replaces`: the version that you read; `*`: any; None: there is none yet.

        Raises Conflict (`stale_curation`) when the stored version is another; InvalidInput, TooLarge for bad rules.
        """
        return await self.run(operations.put_curation(index, rules, note, replaces))

    async def list_curation_versions(self, index: str) -> list[CurationVersion]:
        """Return the stored versions of the rules, newest first."""
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
        """Compare the answers to some queries under new rules and the stored ones. Nothing is written."""
        return await self.run(operations.dry_run_curation(index, rules, queries, mode, size))

    async def list_queries(self, index: str, *, size: int = 100) -> FrequentQueries:
        """Return the frequent queries of an index, the most frequent of late first."""
        return await self.run(operations.list_queries(index, size))

    async def add_queries(self, index: str, times: Mapping[str, int]) -> AddedQueries:
        """Count queries from elsewhere, at most 1,000 in one request. `times`: query to number of searches.

        Raises InvalidInput (`query_not_learnable`; `extra["position"]` says which) and then counts none.
        """
        return await self.run(operations.add_queries(index, times))

    async def delete_queries(self, index: str, query: str | None = None, *, everything: bool = False) -> RemovedQueries:
        """Delete one frequent query, or all with `everything`."""
        return await self.run(operations.delete_queries(index, query, everything))

    async def run(self, operation: Operation[T]) -> T:
        """Send an operation, with retries, and return its answer."""
        arguments = operation.arguments()
        retry = Retry(self._retry_for)
        while True:
            try:
                return operation.read(await self._send(arguments))
            except SparsewellError as error:
                delay = retry.delay(operation, error)
            await sleep(delay)

    async def _send(self, arguments: dict[str, Any]) -> httpx.Response:
        try:
            return await self._http.request(**arguments)
        except httpx.HTTPError as error:
            raise unreachable(self.address, error) from None
