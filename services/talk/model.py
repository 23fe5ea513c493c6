"""The model of a talk: segments of the transcript with times and speakers, chapters, repairs, and how they are stored.

Offsets are characters of the document's text. `Segments` stores 14 bytes a segment in base64 where JSON takes 60. A
window never crosses a chapter, so the windows of a chapter are found by their ends.
"""

import base64
import sys
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from services.errors import InvalidInput

ChapterEngineName = Literal["given", "tiling", "podtile"]

TALK_KIND = "talk"

UNKNOWN_TIME = -1  # a time or a speaker that the transcript does not give
MAX_TIME_MS = 2**31 - 1  # 24.8 days, the longest time in four bytes


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of a text: segment i is the characters `offsets[i]` to `offsets[i + 1]`, the last one to the end.

    `offsets` ascend strictly from 0. `starts` and `ends` are milliseconds or UNKNOWN_TIME, ascending where known.
    `speakers` are positions in `names` or UNKNOWN_TIME. All four have the same length.
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
        """Return whether any segment has a start time."""
        return any(start != UNKNOWN_TIME for start in self.starts)

    def at(self, offset: int) -> int:
        """Return the number of the segment with the character at `offset`."""
        return max(0, bisect_right(self.offsets, offset) - 1)

    def second_at(self, offset: int) -> float | None:
        """Return the start in seconds of the segment at `offset`, or of the nearest earlier segment that has one."""
        for i in range(self.at(offset), -1, -1):
            if self.starts[i] != UNKNOWN_TIME:
                return self.starts[i] / 1000
        return None

    def last_second(self, offset: int) -> float | None:
        """Return the end in seconds of the segment with the character before `offset` (an end, exclusive).

        A segment without an end lasts until the next known start. None if nothing is known.
        """
        i = self.at(max(0, offset - 1))
        if self.ends[i] != UNKNOWN_TIME:
            return self.ends[i] / 1000
        later = next((start for start in self.starts[i + 1 :] if start != UNKNOWN_TIME), None)
        return None if later is None else later / 1000

    def speaker_at(self, offset: int) -> str | None:
        """Return the speaker of the character at `offset`."""
        if not len(self):
            return None
        speaker = self.speakers[self.at(offset)]
        return None if speaker == UNKNOWN_TIME else self.names[speaker]

    def pack(self) -> dict[str, Any]:
        """Return the stored form: 14 bytes a segment in base64 where JSON takes 60.

        Hits are read with up to 50,000 segments.
        """
        return {
            "offsets": _pack_column("i", self.offsets),
            "starts": _pack_column("i", self.starts),
            "ends": _pack_column("i", self.ends),
            "speakers": _pack_column("h", self.speakers),
            "names": list(self.names),
        }

    @classmethod
    def unpack(cls, stored: Mapping[str, Any]) -> Self:
        """Invert `pack`. Raises InvalidInput (`bad_segments`) for anything that `pack` cannot have written."""
        try:
            offsets, starts, ends = (_unpack_column("i", stored[name]) for name in ("offsets", "starts", "ends"))
            speakers = _unpack_column("h", stored["speakers"])
        except (KeyError, ValueError, TypeError):
            raise InvalidInput("bad_segments", "Packed segments must be four columns of base64 and a list.") from None
        if not len(offsets) == len(starts) == len(ends) == len(speakers):
            raise InvalidInput("bad_segments", "Packed segments must have four columns of one length.")
        return cls(offsets, starts, ends, speakers, tuple(stored.get("names", ())))


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


def to_milliseconds(seconds: float) -> int:
    """Return a time in milliseconds. Raises InvalidInput (`bad_time`) if it is out of range."""
    if not 0 <= seconds * 1000 <= MAX_TIME_MS:  # NaN compares false
        raise InvalidInput("bad_time", f"A time must be a number of seconds from 0 to {MAX_TIME_MS // 1000:,}.")
    return round(seconds * 1000)


@dataclass(frozen=True, slots=True)
class Chapter:
    """Characters `start` to `end` (exclusive) of a talk's text, with a title; times in seconds, None if unknown."""

    title: str
    start: int
    end: int
    start_time: float | None = None
    end_time: float | None = None

    def as_json(self, number: int) -> dict[str, Any]:
        """Return the stored and displayed form; `number` counts from 1. Unknown times are left out."""
        members: dict[str, Any] = {"number": number, "title": self.title, "start": self.start, "end": self.end}
        if self.start_time is not None:
            members["start_time"] = self.start_time
        if self.end_time is not None:
            members["end_time"] = self.end_time
        return members

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Chapter":
        """Invert `as_json`."""
        return cls(stored["title"], stored["start"], stored["end"], stored.get("start_time"), stored.get("end_time"))


@dataclass(frozen=True, slots=True)
class Repair:
    """A correction of sent data or of a model's output: its code, its description and how often it was made."""

    code: str
    detail: str
    count: int = 1

    def as_json(self) -> dict[str, Any]:
        """Return the form that is stored in the document's state and displayed."""
        return {"code": self.code, "detail": self.detail, "count": self.count}


@dataclass(frozen=True, slots=True)
class Talk:
    """The checked parts of a talk beside its text. `producer_chapters`: None if the producer gave none.

    `duration` is in seconds; `url` is the address of the recording, for links.
    """

    segments: Segments
    description: str = ""
    producer_chapters: tuple[Chapter, ...] | None = None
    duration: float | None = None
    url: str = ""
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True)
class Chaptering:
    """The outcome of chaptering a talk: the engine, its chapters and repairs, or why there are none (`error`: code,
    reason).

    `engine` is the requested engine, `none` if the index requests none. A producer's chapters have no fingerprint.
    """

    engine: ChapterEngineName | str
    chapters: Sequence[Chapter] = ()
    fingerprint: str = ""
    repairs: Sequence[Repair] = ()
    error: tuple[str, str] | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields that are stored with the encoded document."""
        outcome: dict[str, Any] = {"engine": self.engine}
        if self.fingerprint:
            outcome["fingerprint"] = self.fingerprint
        if self.repairs:
            outcome["repairs"] = [repair.as_json() for repair in self.repairs]
        if self.error is not None:
            outcome["error"] = {"code": self.error[0], "reason": self.error[1]}
        fields: dict[str, Any] = {"chaptering": outcome}
        if self.chapters:
            fields["chapters"] = [chapter.as_json(number) for number, chapter in enumerate(self.chapters, 1)]
            fields["chapter_titles"] = [chapter.title for chapter in self.chapters]
        return fields

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Chaptering":
        """Invert `fields`."""
        outcome = stored["chaptering"]
        error = outcome.get("error")
        return cls(
            outcome["engine"],
            [Chapter.read(chapter) for chapter in stored.get("chapters", ())],
            outcome.get("fingerprint", ""),
            [Repair(**repair) for repair in outcome.get("repairs", ())],
            None if error is None else (error["code"], error["reason"]),
        )


def read_producer_chapters(source: Mapping[str, Any]) -> list[Chapter] | None:
    """Return the producer's chapters of a stored talk, or None."""
    stored = source.get("given")
    return [Chapter.read(chapter) for chapter in stored] if stored else None


class WindowSpan(Protocol):
    """A window of `joined_text`, before or after storing."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


def window_ends(windows: Sequence[WindowSpan], shift: int) -> list[int]:
    """Return where each window ends in the text, ascending. `shift`: characters of `joined_text` before the text.

    A window that holds only part of a long title counts as one of the text's first character.
    """
    return [max(window.end - shift, 1) for window in windows]


def chapter_windows(chapter: Mapping[str, Any], ends: Sequence[int]) -> range:
    """Return the positions of the windows of a stored chapter, given the ends of all windows."""
    return range(bisect_right(ends, chapter["start"]), bisect_right(ends, chapter["end"]))


def find_chapter(chapters: Sequence[Mapping[str, Any]], end: int) -> Mapping[str, Any] | None:
    """Return the stored chapter of a stretch of the text that ends (exclusive) at the character `end`."""
    return next((chapter for chapter in chapters if chapter["start"] < max(end, 1) <= chapter["end"]), None)
