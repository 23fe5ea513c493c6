"""Which stretch of a transcript's text is said when and by whom.

A chapter of a talk, and what was mended on the way to it.

What became of a talk's chapters, and which of its windows are of which chapter.

What makes a document talk: when and by whom its text is said, and the chapters of its producer.
"""

import base64
import sys
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from services.errors import InvalidInput

ChapterEngine = Literal["given", "tiling", "podtile"]


@dataclass(frozen=True, slots=True)
class Chapter:
    """Characters `start` to `end` (exclusive) of a talk's text, with a title; times in seconds where they are known."""

    title: str
    start: int
    end: int
    start_time: float | None = None
    end_time: float | None = None

    def as_json(self, number: int) -> dict[str, Any]:
        """As it is stored and shown; `number` counts from 1. Times that are not known are left out."""
        shown: dict[str, Any] = {"number": number, "title": self.title, "start": self.start, "end": self.end}
        if self.start_time is not None:
            shown["start_time"] = self.start_time
        if self.end_time is not None:
            shown["end_time"] = self.end_time
        return shown

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Chapter":
        """The inverse of `as_json`."""
        return cls(stored["title"], stored["start"], stored["end"], stored.get("start_time"), stored.get("end_time"))


@dataclass(frozen=True, slots=True)
class Repair:
    """Something in what was sent, or in what a model wrote, that was mended: how often, and what was done."""

    code: str
    detail: str
    count: int = 1

    def as_json(self) -> dict[str, Any]:
        """As it is stored in the document's state and shown."""
        return {"code": self.code, "detail": self.detail, "count": self.count}


TALK_KIND = "talk"


class WindowSpan(Protocol):
    """A window of `joined_text`, as it is cut or as it is stored."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Chaptering:
    """Who made the chapters of a talk, what was mended, and why there are none (`error`: code and reason).

    `engine` is the one that was asked, `none` where the index asks none. A producer's chapters have no fingerprint.
    """

    engine: ChapterEngine | str
    chapters: Sequence[Chapter] = ()
    fingerprint: str = ""
    repairs: Sequence[Repair] = ()
    error: tuple[str, str] | None = None

    def fields(self) -> dict[str, Any]:
        """As it is stored with the encoded document."""
        said: dict[str, Any] = {"engine": self.engine}
        if self.fingerprint:
            said["fingerprint"] = self.fingerprint
        if self.repairs:
            said["repairs"] = [repair.as_json() for repair in self.repairs]
        if self.error is not None:
            said["error"] = {"code": self.error[0], "reason": self.error[1]}
        found: dict[str, Any] = {"chaptering": said}
        if self.chapters:
            found["chapters"] = [chapter.as_json(number) for number, chapter in enumerate(self.chapters, 1)]
            found["chapter_titles"] = [chapter.title for chapter in self.chapters]
        return found


def is_talk(source: Mapping[str, Any]) -> bool:
    """Whether a stored document is talk."""
    return source.get("kind") == TALK_KIND


def read_producer_chapters(source: Mapping[str, Any]) -> list[Chapter] | None:
    """The producer's chapters of a stored talk; None where there are none."""
    given = source.get("given")
    return [Chapter.read(one) for one in given] if given else None


def window_ends(windows: Sequence[WindowSpan], shift: int) -> list[int]:
    """Where each window ends in the text, ascending. `shift`: characters of `joined_text` before the text begins.

    A window of a long title alone counts as one of the text's first character.
    """
    return [max(window.end - shift, 1) for window in windows]


def chapter_windows(chapter: Mapping[str, Any], ends: Sequence[int]) -> range:
    """Positions of the windows of a stored chapter, by their ends: a window never crosses a chapter."""
    return range(bisect_right(ends, chapter["start"]), bisect_right(ends, chapter["end"]))


def find_chapter(chapters: Sequence[Mapping[str, Any]], end: int) -> Mapping[str, Any] | None:
    """The stored chapter that a stretch of the text is of which ends (exclusive) at this character."""
    return next((one for one in chapters if one["start"] < max(end, 1) <= one["end"]), None)


UNKNOWN_TIME = -1  # of a time or a speaker that the transcript does not tell
MAX_TIME_MS = 2**31 - 1  # 24.8 days: a time fits four bytes


@dataclass(frozen=True, slots=True)
class Segments:
    """Segment i is the characters `offsets[i]` to `offsets[i + 1]` of a text, the last one to its end.

    `offsets` ascend strictly and begin with 0. `starts` and `ends` are milliseconds, ascending where they are known,
    UNKNOWN elsewhere. `speakers` are positions in `names`, or UNKNOWN. All four have one length.
    """

    offsets: Sequence[int]
    starts: Sequence[int]
    ends: Sequence[int]
    speakers: Sequence[int]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def timed(self) -> bool:
        """Whether any segment says when it begins."""
        return any(start != UNKNOWN_TIME for start in self.starts)

    def at(self, offset: int) -> int:
        """The segment that the character at `offset` belongs to."""
        return max(0, bisect_right(self.offsets, offset) - 1)

    def second_at(self, offset: int) -> float | None:
        """When the segment at `offset` begins, in seconds; of one without a time, the nearest known one before it."""
        for i in range(self.at(offset), -1, -1):
            if self.starts[i] != UNKNOWN_TIME:
                return self.starts[i] / 1000
        return None

    def last_second(self, offset: int) -> float | None:
        """When the segment that holds the character before `offset` (an end, exclusive) ends, in seconds.

        Where it does not say: when the next one with a time begins. None where nothing is known.
        """
        i = self.at(max(0, offset - 1))
        if self.ends[i] != UNKNOWN_TIME:
            return self.ends[i] / 1000
        later = next((start for start in self.starts[i + 1 :] if start != UNKNOWN_TIME), None)
        return None if later is None else later / 1000

    def speaker_at(self, offset: int) -> str | None:
        """Who says the character at `offset`."""
        if not len(self):
            return None
        speaker = self.speakers[self.at(offset)]
        return None if speaker == UNKNOWN_TIME else self.names[speaker]

    def pack(self) -> dict[str, Any]:
        """As it is stored: 14 bytes a segment in base64, where JSON takes 60; a source of 50,000 is read with a hit."""
        return {
            "offsets": _pack_column("i", self.offsets),
            "starts": _pack_column("i", self.starts),
            "ends": _pack_column("i", self.ends),
            "speakers": _pack_column("h", self.speakers),
            "names": list(self.names),
        }

    @classmethod
    def unpack(cls, stored: Mapping[str, Any]) -> Self:
        """The inverse of `pack`. Raises InvalidInput (`bad_segments`) for what it cannot have written."""
        try:
            offsets, starts, ends = (_unpack_column("i", stored[name]) for name in ("offsets", "starts", "ends"))
            speakers = _unpack_column("h", stored["speakers"])
        except (KeyError, ValueError, TypeError):
            raise InvalidInput("bad_segments", "Packed segments are four columns of base64 and a list.") from None
        if not len(offsets) == len(starts) == len(ends) == len(speakers):
            raise InvalidInput("bad_segments", "Packed segments have four columns of one length.")
        return cls(offsets, starts, ends, speakers, tuple(stored.get("names", ())))


def to_milliseconds(seconds: float) -> int:
    """A time that fits a segment. Raises InvalidInput (`bad_time`) for one that does not."""
    if not 0 <= seconds * 1000 <= MAX_TIME_MS:  # NaN compares false
        raise InvalidInput("bad_time", f"A time is a number of seconds from 0 to {MAX_TIME_MS // 1000:,}.")
    return round(seconds * 1000)


def _pack_column(kind: str, column: Sequence[int]) -> str:
    values = array(kind, column)
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode()


def _unpack_column(kind: str, text: str) -> Sequence[int]:
    values = array(kind)
    values.frombytes(base64.b64decode(text, validate=True))
    if sys.byteorder == "big":
        values.byteswap()
    return values


@dataclass(frozen=True, slots=True)
class Talk:
    """A checked transcript beside its text (which is the document's). `given`: chapters of the producer, None: none.

    `duration` in seconds; `url` is that of the recording, for links.
    """

    segments: Segments
    description: str = ""
    given: tuple[Chapter, ...] | None = None
    duration: float | None = None
    url: str = ""
    repairs: tuple[Repair, ...] = ()
