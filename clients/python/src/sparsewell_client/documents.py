"""Documents, chapters of talk, ingestion jobs and dead letters."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class RepairModel(BaseModel):
    """A defect that was repaired in a document or in the output of a chapter engine. `code` is stable."""

    code: str
    detail: str
    count: int


class ChapterModel(BaseModel):
    """A chapter of talk. Offsets count characters of `text`; times are in seconds, null where unknown."""

    number: int = Field(description="from 1")
    title: str
    start: int
    end: int = Field(description="exclusive")
    start_time: float | None = None
    end_time: float | None = None


class LinkedChapter(ChapterModel):
    """A chapter with a link that plays it."""

    link: str | None = Field(None, description="from the template of the index; null: the talk has no `url`")


class ChapteringModel(BaseModel):
    """Who made the chapters: `given` (the producer), the name of an engine, or `none`."""

    engine: str
    fingerprint: str | None = None
    repairs: list[RepairModel] = Field(default=[])
    error: dict[str, str] | None = Field(None, description="why an engine made none")


class SegmentModel(BaseModel):
    """A segment of a transcript; times are in seconds. A line break at the end of `text` comes from the transcript."""

    start: float | None = None
    end: float | None = None
    speaker: str | None = None
    text: str


class ChaptersAnswer(BaseModel):
    """The chapters of a talk. `chaptering` is null until a worker has made them."""

    id: str
    title: str | None = None
    state: str
    url: str | None = None
    duration: float | None = Field(None, description="in seconds")
    chaptering: ChapteringModel | None = None
    talk_repairs: list[RepairModel] = Field(default=[])
    chapters: list[LinkedChapter]


class JobReference(BaseModel):
    """An ingestion job and its index."""

    id: str
    index: str


class RejectionModel(BaseModel):
    """A document that was rejected. `position` counts from 1 within the request."""

    position: int
    id: str | None
    code: str
    reason: str


class StreamStop(BaseModel):
    """Why a stream ended early. Lines up to `after` are in `accepted` or `rejected`; send the rest again."""

    code: str
    detail: str
    after: int
    retry_after: int | None = Field(None, description="in seconds")


class Waited(BaseModel):
    """The result of a wait for the documents of a write. Documents are durable even if it was not reached."""

    for_: str = Field(alias="for")
    reached: bool
    states: dict[str, int] | None = Field(description="documents by state as searches see them; null: unknown")


class IngestAnswer(BaseModel):
    """Accepted documents are durable. `rejected` has the first 1,000 of `rejected_count`.

    `queued` false: the queue was away, the sweeper will enqueue them.
    """

    job: JobReference
    accepted: list[str]
    rejected: list[RejectionModel]
    rejected_count: int = 0
    queued: bool
    stopped: StreamStop | None = None
    waited: Waited | None = Field(None, description="with the parameter `wait` only")


class JobAnswer(BaseModel):
    """An ingestion job. `states` counts its documents by state, as searches see them."""

    id: str
    index: str
    created_at: str
    accepted: int
    rejected: int
    states: dict[str, int]
    finished: bool
    rejections: list[RejectionModel]


class DeadLetterError(BaseModel):
    """Why a document is dead. `code` is stable; `reason` is for people."""

    code: str
    reason: str


class EarlierAttempts(BaseModel):
    """The failures of a document before its last retry."""

    retries: int
    attempts: int = Field(description="sum over all rounds before the last retry")
    error: DeadLetterError | None
    dead_at: str | None


class DocumentAnswer(BaseModel):
    """A document and its state. Members from `kind` on are for talk only."""

    id: str
    title: str | None = None
    text: str
    metadata: dict[str, Any] = Field(default={})
    version: int
    state: str
    vectors: Literal["current", "earlier", "none"]
    job: str | None = None
    encoder: str | None = None
    attempts: int = 0
    error: dict[str, str] | None = None
    earlier: EarlierAttempts | None = None
    kind: str | None = Field(None, description="`talk`, or null")
    description: str | None = None
    duration: float | None = Field(None, description="in seconds")
    url: str | None = None
    chapters: list[ChapterModel] | None = Field(None, description="the producer's, until the talk is encoded")
    chaptering: ChapteringModel | None = None
    talk_repairs: list[RepairModel] | None = None
    segments: list[SegmentModel] | None = Field(None, description="only on request")


class DeadLetter(BaseModel):
    """A dead letter: a document that could not be encoded."""

    id: str
    title: str | None
    version: int = Field(description="the client's")
    attempts: int
    error: DeadLetterError
    job: str | None
    ingested_at: str | None
    dead_at: str | None = Field(description="null for documents of older versions")
    earlier: EarlierAttempts | None = Field(description="null: never retried")


class DeadLetterList(BaseModel):
    """A page of dead letters, latest first. `cursor` names the next page; null after the last."""

    index: str
    total: int
    dead: list[DeadLetter]
    cursor: str | None


class NotRetried(BaseModel):
    """A document that was not retried, and why."""

    id: str
    code: str
    reason: str


class RetryAnswer(BaseModel):
    """The outcome of a retry. `queued` false: the queue was away, the sweeper will enqueue the documents."""

    index: str
    retried: list[str]
    not_retried: list[NotRetried] = Field(description="the first 1,000")
    failed: int = Field(description="number of documents that were not retried")
    queued: bool
    remaining: int = Field(description="dead letters that were not looked at yet")
    cursor: str | None = Field(description="where a retry of all documents continues")
