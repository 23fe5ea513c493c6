"""What the API can do, as values: each function says what to send and how its answer is read. No I/O."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import httpx
import orjson
from pydantic import BaseModel

from query_api.curation_form import CurationAnswer, CurationVersion, CurationVersions, DryRunAnswer
from query_api.models import (
    DeadList,
    DocumentAnswer,
    EncoderList,
    IndexAnswer,
    IndexList,
    IngestAnswer,
    JobAnswer,
    RetryAnswer,
)
from query_api.queries_form import AddedQueries, FrequentQueries, RemovedQueries
from query_api.search.across_form import AcrossAnswer
from query_api.search.answer import SearchAnswer
from query_api.search.batch_form import BatchAnswer, BatchedAnswer
from query_api.search.request import Mode, SearchRequest
from query_api.suggest_form import SuggestAnswer
from query_api.talk_form import ChaptersAnswer
from services.curation.rules import Rules
from services.errors import BackendUnavailable, InvalidInput
from services.index_spec import IndexSpec
from services.web.answers import path_part, read_answer, read_text, utf8

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Document = Mapping[str, Any]
ChapterFile = Literal["podcasting", "webvtt", "youtube"]


@dataclass(frozen=True)
class Operation(Generic[T]):
    """One request and the reading of its answer. `again`: sent twice it does what it does once."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    again: bool = True

    def arguments(self) -> dict[str, Any]:
        """For `request` of an httpx client. Raises InvalidInput (`not_json`) for a body that JSON cannot say."""
        found: dict[str, Any] = {"method": self.method, "url": self.path, "headers": dict(self.headers)}
        if self.params:
            found["params"] = {name: value for name, value in self.params.items() if value is not None}
        if self.body is not None:
            try:
                found["content"] = orjson.dumps(self.body)
            except TypeError as error:
                raise InvalidInput("not_json", f"This cannot be said in JSON: {error}.") from None
            found["headers"]["content-type"] = "application/json"
        return found


def create_index(index: str, spec: IndexSpec | Mapping[str, Any] | None) -> Operation[IndexAnswer]:
    return Operation("PUT", _index(index), _model(IndexAnswer), body=_plain(spec), again=False)


def get_index(index: str) -> Operation[IndexAnswer]:
    return Operation("GET", _index(index), _model(IndexAnswer))


def list_indexes() -> Operation[list[IndexAnswer]]:
    return Operation("GET", "/v1/indexes", lambda response: _model(IndexList)(response).indexes)


def delete_index(index: str) -> Operation[None]:
    return Operation("DELETE", _index(index), _nothing, again=False)


def list_encoders() -> Operation[EncoderList]:
    return Operation("GET", "/v1/encoders", _model(EncoderList))


def add(index: str, documents: Iterable[Document], key: str | None) -> Operation[IngestAnswer]:
    """With an Idempotency-Key it may be sent again: it is one job, however often it arrives."""
    headers = {"idempotency-key": key} if key else {}
    path = f"{_index(index)}/documents"
    return Operation("POST", path, _model(IngestAnswer), headers=headers, body=list(documents), again=key is not None)


def put_document(index: str, document_id: str, document: Document, key: str | None) -> Operation[IngestAnswer]:
    headers = {"idempotency-key": key} if key else {}
    again = key is not None or document.get("version") is not None
    path = _document(index, document_id)
    return Operation("PUT", path, _model(IngestAnswer), headers=headers, body=dict(document), again=again)


def get_document(index: str, document_id: str, segments: bool = False) -> Operation[DocumentAnswer]:
    asked = {"segments": "true" if segments else None}
    return Operation("GET", _document(index, document_id), _model(DocumentAnswer), params=asked)


def get_chapters(index: str, document_id: str) -> Operation[ChaptersAnswer]:
    return Operation("GET", _chapters(index, document_id), _model(ChaptersAnswer))


def export_chapters(index: str, document_id: str, form: ChapterFile) -> Operation[str]:
    return Operation("GET", _chapters(index, document_id), read_text, params={"format": form})


def delete_document(index: str, document_id: str, version: int | None) -> Operation[None]:
    return Operation(
        "DELETE", _document(index, document_id), _nothing, params={"version": version}, again=version is not None
    )


def get_job(job: str) -> Operation[JobAnswer]:
    return Operation("GET", f"/v1/jobs/{_part(job, 'The id of the job')}", _model(JobAnswer))


def list_dead(index: str, size: int, cursor: str | None) -> Operation[DeadList]:
    return Operation("GET", f"{_index(index)}/dead", _model(DeadList), params={"size": size, "cursor": cursor})


def retry_dead(index: str, ids: Iterable[str] | None, cursor: str | None) -> Operation[RetryAnswer]:
    """`ids` None: all of them."""
    body: dict[str, Any] = {"all": True} if ids is None else {"ids": list(ids)}
    if cursor is not None:
        body["cursor"] = cursor
    return Operation("POST", f"{_index(index)}/dead/retry", _model(RetryAnswer), body=body)


def search(index: str, query: str | SearchRequest, options: Mapping[str, Any]) -> Operation[SearchAnswer]:
    return Operation("POST", f"{_index(index)}/search", _model(SearchAnswer), body=search_body(query, options))


def batch(searches: Iterable[Mapping[str, Any]]) -> Operation[list[BatchedAnswer]]:
    """Each search is the members of a request with its `index`."""
    body = {"searches": [{name: _plain(value) for name, value in one.items()} for one in searches]}
    return Operation("POST", "/v1/search/batch", lambda response: _model(BatchAnswer)(response).answers, body=body)


def suggest(index: str, typed: str, options: Mapping[str, Any]) -> Operation[SuggestAnswer]:
    asked = {"q": _text(typed, "What was typed")} | dict(options)
    if asked.get("filter") is not None:
        asked["filter"] = json.dumps(asked["filter"])
    return Operation("GET", f"{_index(index)}/suggest", _model(SuggestAnswer), params=asked)


def search_across(
    indexes: Iterable[str], query: str | SearchRequest, options: Mapping[str, Any]
) -> Operation[AcrossAnswer]:
    body = {"indexes": list(indexes)} | search_body(query, options)
    return Operation("POST", "/v1/search", _model(AcrossAnswer), body=body)


def get_curation(index: str, version: int | None) -> Operation[CurationAnswer]:
    """`version` None: the newest."""
    below = "" if version is None else f"/versions/{version:d}"
    return Operation("GET", f"{_curation(index)}{below}", _model(CurationAnswer))


def put_curation(
    index: str, rules: Rules | Mapping[str, Any], note: str, replaces: int | Literal["*"] | None
) -> Operation[CurationAnswer]:
    """Sent twice it is one version: rules that are the newest already change nothing. Not with `*`, which might take
    back what somebody else wrote in between.
    """
    headers = {} if replaces is None else {"if-match": "*" if replaces == "*" else f'"{replaces:d}"'}
    body = {"rules": _rules(rules), "note": note}
    return Operation("PUT", _curation(index), _model(CurationAnswer), headers=headers, body=body, again=replaces != "*")


def list_curation_versions(index: str) -> Operation[list[CurationVersion]]:
    path = f"{_curation(index)}/versions"
    return Operation("GET", path, lambda response: _model(CurationVersions)(response).versions)


def dry_run_curation(
    index: str, rules: Rules | Mapping[str, Any], queries: Iterable[str], mode: Mode, size: int
) -> Operation[DryRunAnswer]:
    body = {"rules": _rules(rules), "queries": list(queries), "mode": mode, "size": size}
    return Operation("POST", f"{_curation(index)}/dry-run", _model(DryRunAnswer), body=body)


def list_queries(index: str, size: int) -> Operation[FrequentQueries]:
    return Operation("GET", _queries(index), _model(FrequentQueries), params={"size": size})


def add_queries(index: str, times: Mapping[str, int]) -> Operation[AddedQueries]:
    """Sent twice they are counted twice. Raises InvalidInput (`invalid_request`) for what says no times."""
    if not isinstance(times, Mapping):
        raise InvalidInput(
            "invalid_request", f"Queries to count are a mapping of each to its times, and no {type(times).__name__}."
        )
    body = {"queries": [{"query": query, "times": often} for query, often in times.items()]}
    return Operation("POST", _queries(index), _model(AddedQueries), body=body, again=False)


def delete_queries(index: str, query: str | None, everything: bool) -> Operation[RemovedQueries]:
    """What is neither a query nor everything, or both, the API refuses."""
    asked = {"q": None if query is None else _text(query, "The query"), "all": everything or None}
    return Operation("DELETE", _queries(index), _model(RemovedQueries), params=asked, again=False)


def search_body(query: str | SearchRequest, options: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a search: of a request those that were set, and what is given beside it.

    Raises InvalidInput (`invalid_request`) for a query that is neither words nor a request.
    """
    if isinstance(query, SearchRequest):
        given = query.model_dump(mode="json", exclude_unset=True)
    else:
        given = {"query": _text(query, "The query")}
    return given | {name: _plain(value) for name, value in options.items()}


def page(query: str | SearchRequest, options: Mapping[str, Any], cursor: str) -> dict[str, Any]:
    """The options of the page at a cursor. Raises InvalidInput (`invalid_request`) for a search with its own cursor."""
    if search_body(query, options).get("cursor") is not None:
        raise InvalidInput(
            "invalid_request",
            "Pages begin with the first and follow the cursors themselves; give a cursor to a search.",
        )
    return {**options, "cursor": cursor}


def _rules(rules: Rules | Mapping[str, Any]) -> Mapping[str, Any]:
    return rules.stored() if isinstance(rules, Rules) else rules


def _curation(index: str) -> str:
    return f"{_index(index)}/curation"


def _queries(index: str) -> str:
    return f"{_index(index)}/queries"


def _plain(value: Any) -> Any:
    """Models as JSON has them, with what was set of them."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    return value


def _model(kind: type[M]) -> Callable[[httpx.Response], M]:
    return lambda response: kind.model_validate(read_answer(response))


def _nothing(response: httpx.Response) -> None:
    read_answer(response)


def _part(text: str, name: str) -> str:
    return path_part(_text(text, name), name)


def _text(given: object, name: str) -> str:
    """Raises InvalidInput (`invalid_request`, `not_utf8`) for what is no text."""
    if not isinstance(given, str):
        raise InvalidInput("invalid_request", f"{name} has to be text, and is of type {type(given).__name__}.")
    return utf8(given, name)


def _index(index: str) -> str:
    return f"/v1/indexes/{_part(index, 'The name of the index')}"


def _document(index: str, document_id: str) -> str:
    return f"{_index(index)}/documents/{_part(document_id, 'The id of the document')}"


def _chapters(index: str, document_id: str) -> str:
    return f"{_index(index)}/chapters/{_part(document_id, 'The id of the document')}"


def unfinished(job: JobAnswer, seconds: float) -> BackendUnavailable:
    """The error for a job that is not done in time."""
    left = job.states.get("pending", 0)
    return BackendUnavailable(
        "job_unfinished",
        f"After {seconds:g} s {left:,} documents of job {job.id} still wait to be encoded: does a worker run?",
    )
