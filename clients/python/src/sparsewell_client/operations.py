"""Operations of the API as values: the request, and the function that reads its response. No I/O.

Address, API key and retries are here as well, because both clients share them.
"""

import json
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, TypeAdapter

from sparsewell_client.curation import CurationAnswer, CurationVersion, CurationVersions, DryRunAnswer, Rules
from sparsewell_client.documents import (
    ChaptersAnswer,
    DeadLetterList,
    DocumentAnswer,
    IngestAnswer,
    JobAnswer,
    RetryAnswer,
)
from sparsewell_client.errors import (
    BackendUnavailable,
    ConfigurationError,
    InvalidInput,
    Overloaded,
    SparsewellError,
    read_json,
    read_text,
)
from sparsewell_client.indexes import EncoderList, IndexAnswer, IndexList, IndexSpec
from sparsewell_client.search_answer import (
    AddedQueries,
    BatchAnswer,
    BatchedAnswer,
    FrequentQueries,
    MultiIndexAnswer,
    RemovedQueries,
    SearchAnswer,
    SuggestAnswer,
)
from sparsewell_client.search_request import Mode, SearchRequest

KEY_VARIABLE = "SPARSEWELL_API_KEY"
FIRST_DELAY, MAX_DELAY = 0.25, 15.0
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
# A document of one's own, or one that was read.
Document = Mapping[str, Any] | DocumentAnswer
ChapterFile = Literal["podcasting", "webvtt", "youtube"]

_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="constants"))


def encode_json(value: Any, name: str) -> bytes:
    """Return a value as JSON in UTF-8. Dates, enumerations and models have their JSON forms.

    Raises InvalidInput (`not_json`) for a value without a form, for half a surrogate pair, and for NaN and infinity.
    Pydantic's own writer makes null of these two, so a document would lose a value.
    """
    try:
        plain = _ANYTHING.dump_python(value, mode="json")
        return json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise InvalidInput("not_json", f"{name} cannot be written as JSON: {error}.") from None


@dataclass(frozen=True)
class Operation(Generic[T]):
    """A request, and the function that reads its response. `idempotent`: sending it twice changes nothing more."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    idempotent: bool = True

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for `request` of an httpx client. Raises InvalidInput (`not_json`)."""
        arguments: dict[str, Any] = {"method": self.method, "url": self.path, "headers": dict(self.headers)}
        if self.params:
            arguments["params"] = {name: value for name, value in self.params.items() if value is not None}
        if self.body is not None:
            arguments["content"] = encode_json(self.body, "The body")
            arguments["headers"]["content-type"] = "application/json"
        return arguments


def create_index(index: str, spec: IndexSpec | Mapping[str, Any] | None) -> Operation[IndexAnswer]:
    """Create an index. Without `spec` the API's defaults apply."""
    return Operation("PUT", _index(index), _model(IndexAnswer), body=_json(spec), idempotent=False)


def get_index(index: str) -> Operation[IndexAnswer]:
    """Get an index with its declaration and counts."""
    return Operation("GET", _index(index), _model(IndexAnswer))


def list_indexes() -> Operation[list[IndexAnswer]]:
    """List all indexes."""
    return Operation("GET", "/v1/indexes", lambda response: _model(IndexList)(response).indexes)


def delete_index(index: str) -> Operation[None]:
    """Delete an index with its documents."""
    return Operation("DELETE", _index(index), _nothing, idempotent=False)


def list_encoders() -> Operation[EncoderList]:
    """List the encoders that the API has."""
    return Operation("GET", "/v1/encoders", _model(EncoderList))


def add(index: str, documents: Iterable[Document], key: str | None) -> Operation[IngestAnswer]:
    """`key`: an idempotency key; requests with the same key are one job."""
    headers = {"idempotency-key": key} if key else {}
    path, idempotent = f"{_index(index)}/documents", key is not None
    return Operation(
        "POST",
        path,
        _model(IngestAnswer),
        headers=headers,
        body=[_json(document) for document in documents],
        idempotent=idempotent,
    )


def put_document(index: str, document_id: str, document: Document, key: str | None) -> Operation[IngestAnswer]:
    """Store one document under its id. `key`: an idempotency key."""
    headers = {"idempotency-key": key} if key else {}
    body = dict(_json(document))
    idempotent = key is not None or body.get("version") is not None
    path = _document(index, document_id)
    return Operation("PUT", path, _model(IngestAnswer), headers=headers, body=body, idempotent=idempotent)


def get_document(index: str, document_id: str, segments: bool = False) -> Operation[DocumentAnswer]:
    """Get a stored document. `segments`: with the segments of a talk."""
    params = {"segments": "true" if segments else None}
    return Operation("GET", _document(index, document_id), _model(DocumentAnswer), params=params)


def get_chapters(index: str, document_id: str) -> Operation[ChaptersAnswer]:
    """Get the chapters of a talk."""
    return Operation("GET", _chapters(index, document_id), _model(ChaptersAnswer))


def export_chapters(index: str, document_id: str, form: ChapterFile) -> Operation[str]:
    """Get the chapters of a talk as the text of a file in the format `form`."""
    return Operation("GET", _chapters(index, document_id), read_text, params={"format": form})


def delete_document(index: str, document_id: str, version: int | None) -> Operation[None]:
    """Delete a document. Idempotent if `version` is given."""
    path, idempotent = _document(index, document_id), version is not None
    return Operation("DELETE", path, _nothing, params={"version": version}, idempotent=idempotent)


def get_job(job: str) -> Operation[JobAnswer]:
    """Get the state of a job."""
    return Operation("GET", f"/v1/jobs/{_segment(job, 'The id of the job')}", _model(JobAnswer))


def list_dead_letters(index: str, size: int, cursor: str | None) -> Operation[DeadLetterList]:
    """List a page of the dead letters of an index. `cursor` None: the first page."""
    return Operation(
        "GET", f"{_index(index)}/dead-letters", _model(DeadLetterList), params={"size": size, "cursor": cursor}
    )


def retry_dead_letters(index: str, ids: Iterable[str] | None, cursor: str | None) -> Operation[RetryAnswer]:
    """`ids` None: all dead letters."""
    body: dict[str, Any] = {"all": True} if ids is None else {"ids": list(ids)}
    if cursor is not None:
        body["cursor"] = cursor
    return Operation("POST", f"{_index(index)}/dead-letters/retry", _model(RetryAnswer), body=body)


def search(index: str, query: str | SearchRequest, options: Mapping[str, Any]) -> Operation[SearchAnswer]:
    """Search one index. `options` are members of a SearchRequest."""
    return Operation("POST", f"{_index(index)}/search", _model(SearchAnswer), body=search_body(query, options))


def search_across(
    indexes: Iterable[str], query: str | SearchRequest, options: Mapping[str, Any]
) -> Operation[MultiIndexAnswer]:
    """Search several indexes as one. `options` are members of a SearchRequest."""
    body = {"indexes": list(indexes)} | search_body(query, options)
    return Operation("POST", "/v1/search", _model(MultiIndexAnswer), body=body)


def batch(searches: Iterable[Mapping[str, Any]]) -> Operation[list[BatchedAnswer]]:
    """Each search has the members of a SearchRequest, and `index` or `indexes`."""
    body = {"searches": [{name: _json(value) for name, value in search.items()} for search in searches]}
    return Operation("POST", "/v1/search/batch", lambda response: _model(BatchAnswer)(response).answers, body=body)


def suggest(index: str, typed: str, options: Mapping[str, Any]) -> Operation[SuggestAnswer]:
    """Complete a typed text. `options` are further parameters; `filter` may be a mapping."""
    params = {"q": _text(typed, "The typed text")} | dict(options)
    if params.get("filter") is not None:
        params["filter"] = encode_json(params["filter"], "The filter").decode()
    return Operation("GET", f"{_index(index)}/suggest", _model(SuggestAnswer), params=params)


def get_curation(index: str, version: int | None) -> Operation[CurationAnswer]:
    """`version` None: the newest."""
    below = "" if version is None else f"/versions/{version:d}"
    return Operation("GET", f"{_curation(index)}{below}", _model(CurationAnswer))


def put_curation(
    index: str, rules: Rules | Mapping[str, Any], note: str, replaces: int | Literal["*"] | None
) -> Operation[CurationAnswer]:
    """Idempotent unless `replaces` is `*`: a second attempt could then undo a change that came in between."""
    headers = {} if replaces is None else {"if-match": "*" if replaces == "*" else f'"{replaces:d}"'}
    body = {"rules": _rules(rules), "note": note}
    path, idempotent = _curation(index), replaces != "*"
    return Operation("PUT", path, _model(CurationAnswer), headers=headers, body=body, idempotent=idempotent)


def list_curation_versions(index: str) -> Operation[list[CurationVersion]]:
    """List the versions of the curation rules."""
    path = f"{_curation(index)}/versions"
    return Operation("GET", path, lambda response: _model(CurationVersions)(response).versions)


def dry_run_curation(
    index: str, rules: Rules | Mapping[str, Any], queries: Iterable[str], mode: Mode, size: int
) -> Operation[DryRunAnswer]:
    """Compare the hits of queries with new rules and with the stored rules."""
    body = {"rules": _rules(rules), "queries": list(queries), "mode": mode, "size": size}
    return Operation("POST", f"{_curation(index)}/dry-run", _model(DryRunAnswer), body=body)


def list_queries(index: str, size: int) -> Operation[FrequentQueries]:
    """List the most frequent queries of an index."""
    return Operation("GET", _queries(index), _model(FrequentQueries), params={"size": size})


def add_queries(index: str, times: Mapping[str, int]) -> Operation[AddedQueries]:
    """Not idempotent: sent twice, queries are counted twice. Raises InvalidInput (`invalid_request`)."""
    if not isinstance(times, Mapping):
        raise InvalidInput(
            "invalid_request", f"Queries must be a mapping of query to times, not a {type(times).__name__}."
        )
    body = {"queries": [{"query": query, "times": count} for query, count in times.items()]}
    return Operation("POST", _queries(index), _model(AddedQueries), body=body, idempotent=False)


def delete_queries(index: str, query: str | None, everything: bool) -> Operation[RemovedQueries]:
    """The API refuses neither and both of `query` and `everything`."""
    params = {"q": None if query is None else _text(query, "The query"), "all": everything or None}
    return Operation("DELETE", _queries(index), _model(RemovedQueries), params=params, idempotent=False)


def search_body(query: str | SearchRequest, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a search: those that were set in a request, then `options`.

    Raises InvalidInput (`invalid_request`) for a query that is neither text nor a SearchRequest.
    """
    if isinstance(query, SearchRequest):
        members = query.model_dump(exclude_unset=True)
    else:
        members = {"query": _text(query, "The query")}
    return members | {name: _json(value) for name, value in options.items()}


def page(query: str | SearchRequest, options: Mapping[str, Any], cursor: str) -> dict[str, Any]:
    """Return the options of the page at a cursor. Raises InvalidInput (`invalid_request`) if they have a cursor."""
    if search_body(query, options).get("cursor") is not None:
        raise InvalidInput(
            "invalid_request",
            "Paging starts with the first page and sets the cursor itself; use a search for one page.",
        )
    return {**options, "cursor": cursor}


def unfinished(job: JobAnswer, seconds: float) -> BackendUnavailable:
    """Make the error for a job that is not finished in time."""
    pending = job.states.get("pending", 0)
    return BackendUnavailable(
        "job_unfinished",
        f"After {seconds:g} s {pending:,} documents of job {job.id} still wait to be encoded. Is a worker running?",
    )


def _rules(rules: Rules | Mapping[str, Any]) -> Mapping[str, Any]:
    return rules.stored() if isinstance(rules, Rules) else rules


def _json(value: Any) -> Any:
    """Return the members of a model that were set; other values as they are."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    return value


def _model(kind: type[M]) -> Callable[[httpx.Response], M]:
    return lambda response: kind.model_validate(read_json(response))


def _nothing(response: httpx.Response) -> None:
    read_json(response)


def _index(index: str) -> str:
    return f"/v1/indexes/{_segment(index, 'The name of the index')}"


def _document(index: str, document_id: str) -> str:
    return f"{_index(index)}/documents/{_segment(document_id, 'The id of the document')}"


def _chapters(index: str, document_id: str) -> str:
    return f"{_index(index)}/chapters/{_segment(document_id, 'The id of the document')}"


def _curation(index: str) -> str:
    return f"{_index(index)}/curation"


def _queries(index: str) -> str:
    return f"{_index(index)}/queries"


def _segment(text: str, name: str) -> str:
    """Return the text as one path segment. Raises InvalidInput (`invalid_request`, `not_utf8`).

    `.` and `..` are refused: they are path steps even when quoted, and deleting document `..` would delete its index.
    """
    if _text(text, name) in (".", ".."):
        raise InvalidInput("invalid_request", f"{name} is {text}, which cannot be part of an address.")
    return quote(text, safe="")


def _text(value: object, name: str) -> str:
    """Return the text. Raises InvalidInput (`invalid_request`: not a str; `not_utf8`: a lone surrogate)."""
    if not isinstance(value, str):
        raise InvalidInput("invalid_request", f"{name} must be text, not {type(value).__name__}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput("not_utf8", f"{name} is not text in UTF-8.") from None
    return value


class Retry:
    """Delays between the attempts of an operation, for at most `seconds` in all."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._bound = FIRST_DELAY

    def delay(self, operation: Operation[Any], error: SparsewellError) -> float:
        """Return the delay before the next attempt, in seconds: the API's `retry_after`, else jittered back-off.

        Raises `error` when time is up or a second attempt is not safe. After 429 every operation is safe, because
        nothing was accepted. After a lost connection only idempotent operations are.
        """
        if not isinstance(error, Overloaded) and not (isinstance(error, BackendUnavailable) and operation.idempotent):
            raise error
        requested = error.extra.get("retry_after")
        delay = float(requested or random.uniform(self._bound / 2, self._bound))  # noqa: S311 (no secret)
        if time.monotonic() + delay > self._end:
            raise error
        self._bound = min(MAX_DELAY, self._bound * 2)
        return delay


def checked_address(address: str) -> str:
    """Return the address without a slash at its end. Raises ConfigurationError (`bad_address`)."""
    try:
        url = httpx.URL(address.rstrip("/"))
    except httpx.InvalidURL as error:
        raise ConfigurationError("bad_address", f"{address} is not an address: {error}.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError("bad_address", f"{address} is not an http address.")
    if url.port is not None and not 0 < url.port <= 65535:
        raise ConfigurationError("bad_address", f"{address} is not an address: its port is not from 1 to 65535.")
    return str(url)


def key_headers(key: str | None) -> dict[str, str]:
    """Return the header with a key; None: the key in SPARSEWELL_API_KEY. Empty: no header."""
    if key is None:
        key = os.environ.get(KEY_VARIABLE, "")
    return {"authorization": f"Bearer {key}"} if key else {}
