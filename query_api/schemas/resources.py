"""Requests and responses for documents, jobs, dead letters, indexes and encoders, as the OpenAPI document shows them.

`Problem` is the error body (RFC 9457). `TALK_SCHEMA_MEMBERS` describes the members of a document that is a talk. Bodies
are built from checked values, so `json_response` serialises them once, and the models are not validated again.
"""

from typing import Annotated, Any, Literal

import orjson
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.encoders.manifest import DenseIdentity
from services.index_spec import TalkSettings


class ChapterModel(BaseModel):
    """A chapter, with times if they are known."""

    number: int = Field(description="from 1")
    title: str
    start: int = Field(description="character of `text`")
    end: int = Field(description="character of `text`, exclusive")
    start_time: float | None = Field(None, description="in seconds")
    end_time: float | None = None


class LinkedChapter(ChapterModel):
    """A chapter with the address that plays it."""

    link: str | None = Field(None, description="built by the index's template; null: the talk has no `url`")


class RepairModel(BaseModel):
    """A repair of a transcript or of an engine's chapters. `code` is stable."""

    code: str
    detail: str
    count: int


class ChapteringModel(BaseModel):
    """The source of the chapters: `given` (the producer), an engine, or `none`. `error`: why an engine made none."""

    engine: str
    fingerprint: str | None = None
    repairs: list[RepairModel] = Field(default_factory=list)
    error: dict[str, str] | None = None


class SegmentModel(BaseModel):
    """A stretch of speech without a break. A line break at the end of `text` is a line break of the transcript."""

    start: float | None = Field(None, description="in seconds")
    end: float | None = None
    speaker: str | None = None
    text: str


class ChaptersAnswer(BaseModel):
    """The chapters of a talk.

    `chaptering` is null until they are made; until then `chapters` holds only the producer's.
    """

    id: str
    title: str | None = None
    state: str
    url: str | None = None
    duration: float | None = None
    chaptering: ChapteringModel | None = None
    talk_repairs: list[RepairModel] = Field(default_factory=list)
    chapters: list[LinkedChapter]


_TIME_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": "^([0-9]{1,3}:)?[0-9]{1,2}:[0-9]{1,2}([.,][0-9]{1,3})?$"},
    ],
    "description": "seconds, or a clock time such as 1:02:03.5",
}
_CHAPTERS_SCHEMA: dict[str, Any] = {
    "type": "array",
    "maxItems": 1000,
    "items": {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "startTime": _TIME_SCHEMA,
            "endTime": _TIME_SCHEMA,
            "segment": {"type": "integer", "minimum": 0, "description": "number of a segment of the request, from 0"},
            "toc": {"type": "boolean", "description": "false: the chapter is hidden, so it is left out"},
        },
    },
}
# The members of a document that is a talk, as the OpenAPI document shows them.
TALK_SCHEMA_MEMBERS: dict[str, Any] = {
    "kind": {"type": "string", "const": "talk"},
    "description": {"type": "string"},
    "segments": {
        "type": "array",
        "maxItems": 100_000,
        "items": {
            "type": "object",
            "required": ["text"],
            "additionalProperties": False,
            "properties": {
                "start": _TIME_SCHEMA,
                "end": _TIME_SCHEMA,
                "speaker": {"type": "string", "maxLength": 200},
                "text": {"type": "string"},
            },
        },
    },
    "transcript": {
        "type": "object",
        "required": ["type", "text"],
        "additionalProperties": False,
        "properties": {
            "type": {
                "type": "string",
                "description": "text/vtt, application/x-subrip, application/json (Podcasting 2.0) or text/plain",
            },
            "text": {"description": "the content; JSON as a string or as an object", "type": ["string", "object"]},
        },
    },
    "chapters": {
        "description": "the producer's chapters: Podcasting 2.0 chapters, or their list; never overwritten",
        "anyOf": [
            _CHAPTERS_SCHEMA,
            {"type": "object", "required": ["chapters"], "properties": {"chapters": _CHAPTERS_SCHEMA}},
        ],
    },
    "duration": _TIME_SCHEMA,
    "url": {"type": "string", "maxLength": 2000, "description": "address of the recording: http, https or relative"},
}


class JobReference(BaseModel):
    """A reference to an ingestion job."""

    id: str
    index: str


class RejectionModel(BaseModel):
    """A rejected document: its position in the request, from 1 (NDJSON: its line)."""

    position: int
    id: str | None
    code: str
    reason: str


class StreamStop(BaseModel):
    """Why a stream ended early. The lines up to `after` are in `accepted` or `rejected`; send the rest again."""

    code: str
    detail: str
    after: int
    retry_after: int | None = None


class Waited(BaseModel):
    """The result of a wait for the documents of a write. Documents are durable even if it was not reached."""

    for_: str = Field(alias="for")
    reached: bool
    states: dict[str, int] | None = Field(description="documents by state as searches see them; null: unknown")


class IngestAnswer(BaseModel):
    """The result of an ingestion. Accepted documents are durable.

    `queued` false: the queue was unreachable, and the sweeper will enqueue them.
    """

    job: JobReference
    accepted: list[str]
    rejected: list[RejectionModel] = Field(description="the first 1,000 rejected documents")
    rejected_count: int = Field(0, description="number of rejected documents")
    queued: bool
    stopped: StreamStop | None = None
    waited: Waited | None = Field(None, description="with `wait` only")


class JobAnswer(BaseModel):
    """A job, with its documents by state, as searches see them."""

    id: str
    index: str
    created_at: str
    accepted: int
    rejected: int
    states: dict[str, int]
    finished: bool
    rejections: list[RejectionModel]


class DeadLetterError(BaseModel):
    """Why a document became a dead letter. `code` is stable; `reason` is for people."""

    code: str
    reason: str


class EarlierAttempts(BaseModel):
    """The history of a document before its last retry; gone once it is encoded."""

    retries: int
    attempts: int = Field(description="attempts of all rounds before the last retry")
    error: DeadLetterError | None
    dead_at: str | None


class DocumentAnswer(BaseModel):
    """A document and its state."""

    id: str
    title: str | None = None
    text: str
    metadata: dict[str, Any] = Field(default_factory=dict)
    version: int
    state: str
    vectors: Literal["current", "earlier", "none"] = Field(
        description="the version of the text that search by meaning uses: this one, an earlier one until this one is "
        "encoded, or none yet"
    )
    job: str | None = None
    encoder: str | None = None
    attempts: int = 0
    error: dict[str, str] | None = None
    earlier: EarlierAttempts | None = None
    kind: str | None = Field(None, description="`talk`; null for other documents, as are all members below")
    description: str | None = None
    duration: float | None = Field(None, description="in seconds")
    url: str | None = None
    chapters: list[ChapterModel] | None = Field(None, description="the producer's chapters until the talk is encoded")
    chaptering: ChapteringModel | None = None
    talk_repairs: list[RepairModel] | None = Field(None, description="repairs of the transcript")
    segments: list[SegmentModel] | None = Field(None, description="with `segments=true`")


class DeadLetter(BaseModel):
    """A dead letter: a document that could not be encoded."""

    id: str
    title: str | None
    version: int = Field(description="the client's version")
    attempts: int
    error: DeadLetterError
    job: str | None
    ingested_at: str | None
    dead_at: str | None = Field(description="null when it died before this was recorded")
    earlier: EarlierAttempts | None = Field(description="null unless it was retried")


class DeadLetterList(BaseModel):
    """A page of dead letters, latest first. `cursor` names the next page; null after the last page."""

    index: str
    total: int
    dead: list[DeadLetter]
    cursor: str | None


class RetryRequest(BaseModel):
    """Dead letters to retry: either `ids` or `all`. With `all`, `cursor` continues after the previous response."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[str], Field(min_length=1, max_length=1000, fail_fast=True)] | None = None
    all: bool = False
    cursor: str | None = None

    @model_validator(mode="after")
    def _ids_or_all(self) -> "RetryRequest":
        if (self.ids is None) != self.all:
            raise ValueError("give either `ids` or `all`: true")
        if self.cursor is not None and not self.all:
            raise ValueError("a `cursor` needs `all`")
        "".join(self.ids or ()).encode()  # Half a surrogate pair raises a ValueError.
        return self


class NotRetried(BaseModel):
    """A dead letter that was not retried, with the reason."""

    id: str
    code: str
    reason: str


class RetryAnswer(BaseModel):
    """The result of a retry of dead letters.

    `queued` false: the queue was unreachable, and the sweeper will enqueue them. `remaining`: not looked at.
    """

    index: str
    retried: list[str]
    not_retried: list[NotRetried] = Field(description="the first 1,000 of them")
    failed: int = Field(description="number of dead letters that were looked at and not retried")
    queued: bool
    remaining: int
    cursor: str | None = Field(description="cursor with which `all` continues after this response")


class IndexAnswer(BaseModel):
    """An index: its declaration, its searched generation, and its documents by state."""

    name: str
    generation: int
    fields: dict[str, str]
    encoder: dict[str, str]
    window: dict[str, int]
    windows: str = Field(description="searched vectors: `merged`, `nested` or `both`")
    language: str
    document_top_k: int
    adapt_weights: bool = Field(description="whether query weights are adapted to the documents")
    piece_features: bool = Field(False, description="whether the field `pieces` has the vectors by piece")
    adapted_to: int = Field(description="number of documents when their pieces were counted; 0: not adapted yet")
    dense: DenseIdentity | None = Field(description="dense encoder whose vectors are stored for reranking; null: none")
    talk: TalkSettings | None = Field(
        None, description="how talk is chaptered and linked; null: the index takes no talk"
    )
    suggests: bool = Field(
        description="whether the index suggests titles and corrections; false: reindex it, an older version made it"
    )
    folds: bool = Field(
        False, description="whether lexical search folds accents; false: reindex the index, an older version made it"
    )
    created_at: str
    documents: dict[str, int] | None = None


class IndexList(BaseModel):
    """All indexes."""

    indexes: list[IndexAnswer]


class EncoderAnswer(BaseModel):
    """An encoder whose query table this service has."""

    name: str
    fingerprint: str
    default: bool = Field(description="whether it is the encoder of new indexes that name none")
    licence: str


class EncoderList(BaseModel):
    """All encoders."""

    encoders: list[EncoderAnswer]


class Problem(BaseModel):
    """A problem (RFC 9457). `code` is stable; `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retry_after: int | None = Field(None, description="seconds, as in the header Retry-After")


def json_response(value: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(orjson.dumps(value), status, media_type="application/json")


def document_responses(status: int, model: type | None, *problems: int) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a path for the OpenAPI document."""
    answers: dict[int | str, dict[str, Any]] = {status: {"model": model} if model else {"description": "done"}}
    for code in problems:
        answers[code] = {"model": Problem}  # Served as problem+json, see `query_api.app`.
        if code in (429, 503):
            answers[code]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "in seconds"}}
    return answers
