"""Bodies of requests and answers, as the OpenAPI document shows them.

What answers show of talk.

Answers as bytes: bodies are built from checked values, so they are serialised once and not validated again.
"""

from typing import Any

import orjson
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.encoders.manifest import DenseIdentity
from services.index_spec import TalkSettings


class ChapterModel(BaseModel):
    """A chapter; times are there where they are known."""

    number: int = Field(description="from 1")
    title: str
    start: int = Field(description="character of `text`")
    end: int = Field(description="character of `text`, exclusive")
    start_time: float | None = Field(None, description="in seconds")
    end_time: float | None = None


class LinkedChapter(ChapterModel):
    """A chapter with the address that plays it."""

    link: str | None = Field(None, description="by the index's template; null: the talk has no `url`")


class RepairModel(BaseModel):
    """Something in what was sent, or in what an engine wrote, that was mended. `code` is stable."""

    code: str
    detail: str
    count: int


class ChapteringModel(BaseModel):
    """Who made the chapters: `given` (the producer), an engine, or `none`; `error`: why an engine made none."""

    engine: str
    fingerprint: str | None = None
    repairs: list[RepairModel] = Field(default_factory=list)
    error: dict[str, str] | None = None


class SegmentModel(BaseModel):
    """What is said without a break; a line break at the end of `text` is one of the transcript."""

    start: float | None = Field(None, description="in seconds")
    end: float | None = None
    speaker: str | None = None
    text: str


class ChaptersAnswer(BaseModel):
    """The chapters of a talk. `chaptering` is null until they are made; then they are the producer's, or none."""

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
    "description": "seconds, or a clock as in 1:02:03.5",
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
            "segment": {"type": "integer", "minimum": 0, "description": "number of a segment as sent, from 0"},
            "toc": {"type": "boolean", "description": "false: the chapter is not shown, and left out"},
        },
    },
}
# The members of a document that make it talk, as the OpenAPI document shows them.
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
            "text": {"description": "the content; JSON as a text or as it is", "type": ["string", "object"]},
        },
    },
    "chapters": {
        "description": "the producer's: Podcasting 2.0 chapters, or the list in them; never overwritten",
        "anyOf": [
            _CHAPTERS_SCHEMA,
            {"type": "object", "required": ["chapters"], "properties": {"chapters": _CHAPTERS_SCHEMA}},
        ],
    },
    "duration": _TIME_SCHEMA,
    "url": {"type": "string", "maxLength": 2000, "description": "of the recording: http, https or relative"},
}


class JobReference(BaseModel):
    id: str
    index: str


class RejectionModel(BaseModel):
    """A document that was not accepted: its place in the request, counted from 1 (NDJSON: its line)."""

    position: int
    id: str | None
    code: str
    reason: str


class Stopped(BaseModel):
    """Why a stream ended half-way. What came up to line `after` is in `accepted` or `rejected`; send the rest again."""

    code: str
    detail: str
    after: int
    retry_after: int | None = None


class IngestAnswer(BaseModel):
    """What was accepted is durable. `queued` false: the queue was not reached and the sweeper will enqueue it."""

    job: JobReference
    accepted: list[str]
    rejected: list[RejectionModel]
    queued: bool
    stopped: Stopped | None = None


class JobAnswer(BaseModel):
    """Documents by state, as searches see them."""

    id: str
    index: str
    created_at: str
    accepted: int
    rejected: int
    states: dict[str, int]
    finished: bool
    rejections: list[RejectionModel]


class Cause(BaseModel):
    """Why a document died. `code` is stable; `reason` is for people."""

    code: str
    reason: str


class Earlier(BaseModel):
    """What happened to a document before it was last retried; gone once it is encoded."""

    retries: int
    attempts: int = Field(description="of all rounds before the last retry")
    error: Cause | None
    dead_at: str | None


class DocumentAnswer(BaseModel):
    """A document and how far it is."""

    id: str
    title: str | None = None
    text: str
    metadata: dict[str, Any] = Field(default_factory=dict)
    version: int
    state: str
    job: str | None = None
    encoder: str | None = None
    attempts: int = 0
    error: dict[str, str] | None = None
    earlier: Earlier | None = None
    kind: str | None = Field(None, description="`talk`; null for other documents, as all that follows")
    description: str | None = None
    duration: float | None = Field(None, description="in seconds")
    url: str | None = None
    chapters: list[ChapterModel] | None = Field(None, description="the producer's until the talk is encoded")
    chaptering: ChapteringModel | None = None
    talk_repairs: list[RepairModel] | None = Field(None, description="what was mended in what was sent")
    segments: list[SegmentModel] | None = Field(None, description="with `segments=true`")


class DeadDocument(BaseModel):
    """A document that could not be encoded."""

    id: str
    title: str | None
    version: int = Field(description="the client's")
    attempts: int
    error: Cause
    job: str | None
    ingested_at: str | None
    dead_at: str | None = Field(description="null when it died before this was recorded")
    earlier: Earlier | None = Field(description="null unless it was retried")


class DeadList(BaseModel):
    """A page, the latest deaths first. `cursor` names the next page, null after the last one."""

    index: str
    total: int
    dead: list[DeadDocument]
    cursor: str | None


class RetryRequest(BaseModel):
    """Either `ids` or `all`. With `all`, `cursor` goes on where the answer before ended."""

    model_config = ConfigDict(extra="forbid")

    ids: list[str] | None = Field(None, min_length=1, max_length=1000)
    all: bool = False
    cursor: str | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "RetryRequest":
        if (self.ids is None) != self.all:
            raise ValueError("give either `ids` or `all`: true")
        if self.cursor is not None and not self.all:
            raise ValueError("a `cursor` goes with `all`")
        "".join(self.ids or ()).encode()  # half a surrogate pair raises a ValueError
        return self


class NotRetried(BaseModel):
    id: str
    code: str
    reason: str


class RetryAnswer(BaseModel):
    """`queued` false: the queue was not reached and the sweeper will enqueue them. `remaining` were not looked at."""

    index: str
    retried: list[str]
    not_retried: list[NotRetried] = Field(description="the first 1,000")
    failed: int = Field(description="all that were looked at and not retried")
    queued: bool
    remaining: int
    cursor: str | None = Field(description="with which `all` goes on where this answer ended")


class IndexAnswer(BaseModel):
    """An index as it stands. `documents` counts by state."""

    name: str
    generation: int
    fields: dict[str, str]
    encoder: dict[str, str]
    window: dict[str, int]
    windows: str = Field(description="vectors that are searched: merged, nested or both")
    language: str
    document_top_k: int
    dense: DenseIdentity | None = Field(description="whose vectors are stored for reranking; null: none are")
    talk: TalkSettings | None = Field(None, description="how talk is chaptered and linked; null: none is taken")
    suggests: bool = Field(
        description="titles complete what is typed and words correct it; false: made by an older version, reindex it"
    )
    created_at: str
    documents: dict[str, int] | None = None


class IndexList(BaseModel):
    indexes: list[IndexAnswer]


class EncoderAnswer(BaseModel):
    """An encoder whose query table this service has."""

    name: str
    fingerprint: str
    default: bool = Field(description="whether new indexes get it when they name none")
    licence: str


class EncoderList(BaseModel):
    encoders: list[EncoderAnswer]


class Problem(BaseModel):
    """RFC 9457. `code` is stable; `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retry_after: int | None = Field(None, description="seconds; as the header Retry-After")


def json_response(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, media_type="application/json")


def document_responses(status: int, model: type | None, *problems: int) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of a path's answers."""
    answers: dict[int | str, dict[str, Any]] = {status: {"model": model} if model else {"description": "done"}}
    for code in problems:
        answers[code] = {"model": Problem}  # as problem+json, see `query_api.app`
        if code in (429, 503):
            answers[code]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "in seconds"}}
    return answers
