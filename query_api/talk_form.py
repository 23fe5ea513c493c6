"""What answers show of talk."""

from typing import Any

from pydantic import BaseModel, Field


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


_TIME: dict[str, Any] = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": "^([0-9]{1,3}:)?[0-9]{1,2}:[0-9]{1,2}([.,][0-9]{1,3})?$"},
    ],
    "description": "seconds, or a clock as in 1:02:03.5",
}
_CHAPTERS: dict[str, Any] = {
    "type": "array",
    "maxItems": 1000,
    "items": {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "startTime": _TIME,
            "endTime": _TIME,
            "segment": {"type": "integer", "minimum": 0, "description": "number of a segment as sent, from 0"},
            "toc": {"type": "boolean", "description": "false: the chapter is not shown, and left out"},
        },
    },
}
# The members of a document that make it talk, as the OpenAPI document shows them.
MEMBERS: dict[str, Any] = {
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
                "start": _TIME,
                "end": _TIME,
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
        "anyOf": [_CHAPTERS, {"type": "object", "required": ["chapters"], "properties": {"chapters": _CHAPTERS}}],
    },
    "duration": _TIME,
    "url": {"type": "string", "maxLength": 2000, "description": "of the recording: http, https or relative"},
}
