"""Rows of a transcript in order, with times that agree, as one text with segments."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.errors import InvalidInput, TooLarge
from services.talk.cutting import cut, glued
from services.talk.repairs import Repairs
from services.talk.row import MAX_SPEAKERS, Row, check_count
from services.talk.segments import UNKNOWN, Segments

_PAUSE = 2000  # milliseconds of silence after which the text goes on in a new line


@dataclass(frozen=True, slots=True)
class Joined:
    """`places[i]` is the segment that what was sent as number i begins with, or the next one where it was left out.

    `duration_given`: whether the sender said it (it may have been replaced).
    """

    text: str
    segments: Segments
    places: Sequence[int]
    duration: int  # milliseconds, UNKNOWN when neither said nor to be seen
    duration_given: bool = False


def joined(rows: Sequence[Row], duration: int, repairs: Repairs) -> Joined:
    """Raises InvalidInput (`empty_transcript`) or TooLarge (`too_many_segments`, `too_many_speakers`)."""
    said = [row for row in rows if row.text]
    repairs.count("empty_segments", len(rows) - len(said))
    if not said:
        raise InvalidInput("empty_transcript", "The transcript has no words.")
    said = _in_order(said, repairs)
    given = duration != UNKNOWN
    duration = _agreeing(said, duration, repairs)
    parts = _cut(said, repairs)
    check_count(len(parts))
    text, offsets = _text(parts)
    names = {name: i for i, name in enumerate(dict.fromkeys(part.speaker for part in parts if part.speaker))}
    if len(names) > MAX_SPEAKERS:
        raise TooLarge("too_many_speakers", f"A talk may have {MAX_SPEAKERS:,} speakers.", limit=MAX_SPEAKERS)
    speakers = array("h", (names.get(part.speaker, UNKNOWN) for part in parts))
    starts, ends = array("i", (part.start for part in parts)), array("i", (part.end for part in parts))
    segments = Segments(array("i", offsets), starts, ends, speakers, tuple(names))
    return Joined(text, segments, _places(parts, len(rows)), duration, given)


def _cut(rows: list[Row], repairs: Repairs) -> list[Row]:
    parts: list[Row] = []
    for row in rows:
        before = len(parts)
        parts += cut(row)
        repairs.count("long_segments", len(parts) - before > 1)
    return parts


def _in_order(rows: list[Row], repairs: Repairs) -> list[Row]:
    """By their starts; one without a start stays behind the one before it."""
    keys, last, unordered = [], UNKNOWN, 0
    for row in rows:
        if row.start != UNKNOWN:
            unordered += row.start < last
            last = row.start
        keys.append(last)
    if not unordered:
        return rows
    repairs.count("unordered_segments", unordered)
    order = sorted(range(len(rows)), key=keys.__getitem__)  # stable
    return [rows[i] for i in order]


def _agreeing(rows: list[Row], duration: int, repairs: Repairs) -> int:
    """Gives each an end that is known, not before its start and not after the next one's; the duration that results."""
    following, missing, reversed_, overlapping, alone = UNKNOWN, 0, 0, 0, 0
    given = duration
    if duration != UNKNOWN:
        duration = max(duration, *(row.start for row in rows))
    for row in reversed(rows):
        if row.start == UNKNOWN:
            alone += row.end != UNKNOWN
            row.end = UNKNOWN
            continue
        if row.end == UNKNOWN:
            row.end, missing = (following if following != UNKNOWN else duration), missing + 1
        elif row.end < row.start:
            row.end, reversed_ = (following if following != UNKNOWN else duration), reversed_ + 1
        elif UNKNOWN != following < row.end:
            row.end, overlapping = following, overlapping + 1
        following = row.start
    repairs.count("ends_without_start", alone)
    repairs.count("missing_ends", missing)
    repairs.count("end_before_start", reversed_)
    repairs.count("overlapping_segments", overlapping)
    last = max(max(row.start, row.end) for row in rows)
    if UNKNOWN != given < last:
        repairs.count("beyond_duration", sum(1 for row in rows if max(row.start, row.end) > given))
    return max(duration, last)


def _text(parts: list[Row]) -> tuple[str, list[int]]:
    """The whole text and where each part begins in it."""
    pieces: list[str] = []
    offsets, at = [], 0
    for part, after in [*pairwise(parts), (parts[-1], None)]:
        offsets.append(at)
        joiner = "" if after is None else _joiner(part, after)
        pieces += (part.text, joiner)
        at += len(part.text) + len(joiner)
    return "".join(pieces), offsets


def _joiner(before: Row, after: Row) -> str:
    silent = UNKNOWN not in (before.end, after.start) and after.start - before.end >= _PAUSE
    if before.ends_paragraph or silent or before.speaker != after.speaker:
        return "\n"
    return "" if glued(before.text, after.text) else " "


def _places(parts: list[Row], sent: int) -> Sequence[int]:
    places = array("i", [UNKNOWN]) * sent
    for number in range(len(parts) - 1, -1, -1):
        places[parts[number].sent] = number
    following = len(parts) - 1
    for i in range(sent - 1, -1, -1):
        if places[i] == UNKNOWN:
            places[i] = following
        following = places[i]
    return places
