"""Which stretch of a transcript's text is said when and by whom."""

import base64
import sys
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from services.errors import InvalidInput

UNKNOWN = -1  # of a time or a speaker that the transcript does not tell
LONGEST_MS = 2**31 - 1  # 24.8 days: a time fits four bytes


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
        return any(start != UNKNOWN for start in self.starts)

    def at(self, offset: int) -> int:
        """The segment that the character at `offset` belongs to."""
        return max(0, bisect_right(self.offsets, offset) - 1)

    def second_at(self, offset: int) -> float | None:
        """When the segment at `offset` begins, in seconds; of one without a time, the nearest known one before it."""
        for i in range(self.at(offset), -1, -1):
            if self.starts[i] != UNKNOWN:
                return self.starts[i] / 1000
        return None

    def last_second(self, offset: int) -> float | None:
        """When the segment that holds the character before `offset` (an end, exclusive) ends, in seconds.

        Where it does not say: when the next one with a time begins. None where nothing is known.
        """
        i = self.at(max(0, offset - 1))
        if self.ends[i] != UNKNOWN:
            return self.ends[i] / 1000
        later = next((start for start in self.starts[i + 1 :] if start != UNKNOWN), None)
        return None if later is None else later / 1000

    def speaker_at(self, offset: int) -> str | None:
        """Who says the character at `offset`."""
        if not len(self):
            return None
        speaker = self.speakers[self.at(offset)]
        return None if speaker == UNKNOWN else self.names[speaker]

    def pack(self) -> dict[str, Any]:
        """As it is stored: 14 bytes a segment in base64, where JSON takes 60; a source of 50,000 is read with a hit."""
        return {
            "offsets": _packed("i", self.offsets),
            "starts": _packed("i", self.starts),
            "ends": _packed("i", self.ends),
            "speakers": _packed("h", self.speakers),
            "names": list(self.names),
        }

    @classmethod
    def unpack(cls, stored: Mapping[str, Any]) -> Self:
        """The inverse of `pack`. Raises InvalidInput (`bad_segments`) for what it cannot have written."""
        try:
            offsets, starts, ends = (_unpacked("i", stored[name]) for name in ("offsets", "starts", "ends"))
            speakers = _unpacked("h", stored["speakers"])
        except (KeyError, ValueError, TypeError):
            raise InvalidInput("bad_segments", "Packed segments are four columns of base64 and a list.") from None
        if not len(offsets) == len(starts) == len(ends) == len(speakers):
            raise InvalidInput("bad_segments", "Packed segments have four columns of one length.")
        return cls(offsets, starts, ends, speakers, tuple(stored.get("names", ())))


def milliseconds(seconds: float) -> int:
    """A time that fits a segment. Raises InvalidInput (`bad_time`) for one that does not."""
    if not 0 <= seconds * 1000 <= LONGEST_MS:  # NaN compares false
        raise InvalidInput("bad_time", f"A time is a number of seconds from 0 to {LONGEST_MS // 1000:,}.")
    return round(seconds * 1000)


def _packed(kind: str, column: Sequence[int]) -> str:
    values = array(kind, column)
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode()


def _unpacked(kind: str, text: str) -> Sequence[int]:
    values = array(kind)
    values.frombytes(base64.b64decode(text, validate=True))
    if sys.byteorder == "big":
        values.byteswap()
    return values
