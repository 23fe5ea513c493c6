"""Rows of a transcript in order, with times that agree, as one text with segments.

What is mended in what was sent, each kind under a stable code, counted and said once.

A segment while a transcript is read: what any of the formats says about a stretch of talk.

Long segments in parts, so that a chapter may begin within them.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from services.errors import InvalidInput, TooLarge
from services.talk.model import UNKNOWN_TIME, Repair, Segments, to_milliseconds

# docs/talk.md lists the same; what an engine of chapters has mended of its own is said beside it, with the chapters.
REPAIR_DETAILS = {
    "unread_cues": "Cues without readable times (in SubRip also those without words) were left out.",
    "long_names": "Names of voices were cut to 200 characters.",
    "repeated_captions": "Lines that rolling captions show a second time were left out.",
    "empty_segments": "Segments without words were left out.",
    "unordered_segments": "Segments that begin before the one before them were sorted by their starts.",
    "end_before_start": "Ends before their starts were replaced by the start of the next segment.",
    "ends_without_start": "Ends of segments that do not say when they begin were left out.",
    "missing_ends": "Segments that do not say when they end were ended where the next one begins.",
    "overlapping_segments": "Segments that end after the next one begins were ended there.",
    "beyond_duration": "Segments are said after the given duration, which was replaced by the last time there is.",
    "long_segments": "Segments of more than 1,500 characters were cut between sentences or words; times of the parts "
    "are their share of the segment's.",
    "hidden_chapters": "Chapters with `toc`: false were left out.",
    "chapter_members_left_out": "Members of chapters other than title, start and end were left out.",
    "long_titles": "Titles of chapters were cut to 1,000 characters.",
    "untitled_chapters": "Chapters without a title were given their number as one.",
    "unordered_chapters": "Chapters that begin before the one before them were sorted by their starts.",
    "chapter_times": "Chapters that begin at another time than their segment were given that of the segment.",
    "chapter_ends": "Ends of chapters before their starts, or after the next one's, were replaced by the next start.",
    "chapters_beyond_end": "Chapters that begin after the end of the talk were left out.",
    "chapters_without_text": "Chapters that begin at the same segment as another were left out.",
    "chapters_by_share": "The transcript has no times: chapters were placed by their share of the duration.",
}


class RepairCounter:
    """Counts them while a talk is read."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, code: str, number: int = 1) -> None:
        """Notes `number` more of a kind; none of them is no repair."""
        self._counts[code] += number

    def made(self) -> tuple[Repair, ...]:
        """What was mended, in the order of the table."""
        return tuple(
            Repair(code, REPAIR_DETAILS[code], self._counts[code]) for code in REPAIR_DETAILS if self._counts[code]
        )


MAX_SEGMENTS = 100_000  # ten hours word by word
MAX_SPEAKERS = 1000
MAX_SPEAKER_CHARACTERS = 200  # characters of a name
_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2}(?:[.,]\d{1,3})?)", re.ASCII)


@dataclass(slots=True)
class TranscriptRow:
    """`start` and `end` in milliseconds or UNKNOWN. `sent`: its place in what was sent, from 0; `ends_paragraph`: the
    text goes on in a new line after it."""

    text: str
    start: int = UNKNOWN_TIME
    end: int = UNKNOWN_TIME
    speaker: str = ""
    sent: int = 0
    ends_paragraph: bool = False


def collapse_white_space(text: str) -> str:
    """Without line breaks and runs of spaces."""
    return " ".join(text.split())


def parse_time(value: Any, where: str) -> int:
    """A time as milliseconds: a number of seconds, or a clock as in `1:02:03.5`. None: UNKNOWN.

    Raises InvalidInput (`bad_time`), naming `where`.
    """
    if value is None:
        return UNKNOWN_TIME
    seconds = value
    if isinstance(value, str) and (clock := _CLOCK.fullmatch(value.strip())):
        seconds = int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + float(clock[3].replace(",", "."))
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidInput("bad_time", f"{where} must be a number of seconds or a time as in 1:02:03.5.")
    try:
        return to_milliseconds(seconds)
    except InvalidInput as error:
        raise InvalidInput(error.code, f"{where}: {error.detail}") from None


def validate_speaker(value: Any, where: str) -> str:
    """A name in one line; empty for none. Raises InvalidInput (`bad_segments`)."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_SPEAKER_CHARACTERS:
        raise InvalidInput("bad_segments", f"{where} must be a name of {MAX_SPEAKER_CHARACTERS} characters at most.")
    return collapse_white_space(value)


def check_segment_count(number: int) -> None:
    """Raises TooLarge (`too_many_segments`)."""
    if number > MAX_SEGMENTS:
        raise TooLarge(
            "too_many_segments", f"A talk may have {MAX_SEGMENTS:,} segments; this has {number:,}.", limit=MAX_SEGMENTS
        )


MAX_SEGMENT_CHARACTERS = 1500  # characters: about a minute and a half of talk; what is longer is cut
SEGMENT_PART_CHARACTERS = (
    600  # characters of a part: some hundred words, of the size at which boundaries of chapters are looked for
)
_SENTENCE_END = re.compile(r"[.!?…][\"'”’»)\]]*(?= )|[。！？]")
# Scripts that are written without spaces, between whose characters none is put.
_UNSPACED_SCRIPTS = re.compile(r"[\u3000-\u312f\u31a0-\u9fff\uf900-\ufaff\uff00-\uffef]")


def split_long_segment(row: TranscriptRow) -> Iterator[TranscriptRow]:
    """The row itself unless it is longer than `LONGEST`; parts of `SEGMENT_PART_CHARACTERS` characters where its words let it be cut."""
    parts = [row.text] if len(row.text) <= MAX_SEGMENT_CHARACTERS else list(_parts(row.text))
    if len(parts) == 1:
        yield row
        return
    timed = UNKNOWN_TIME not in (row.start, row.end)
    at, whole = 0, len(row.text)
    for part in parts:
        start = row.start if at == 0 else UNKNOWN_TIME
        end = UNKNOWN_TIME
        if timed:
            length = row.end - row.start
            start, end = row.start + length * at // whole, row.start + length * (at + len(part)) // whole
        at += len(part)
        last = part is parts[-1]
        yield TranscriptRow(part.strip(), start, end, row.speaker, row.sent, row.ends_paragraph and last)


def is_written_together(before: str, after: str) -> bool:
    """Whether two texts are written without a space between them."""
    return bool(before and after and _UNSPACED_SCRIPTS.match(before[-1]) and _UNSPACED_SCRIPTS.match(after[0]))


def _parts(text: str) -> Iterator[str]:
    at = 0
    while len(text) - at > SEGMENT_PART_CHARACTERS:
        place = _place(text, at)
        if place is None:
            break
        yield text[at:place]
        at = place
    yield text[at:]


def _place(text: str, at: int) -> int | None:
    """Where to cut after `at`: behind the last sentence that fits, else between words; behind the first word when none
    fits; None where there is nothing to cut at."""
    stretch = text[at : at + SEGMENT_PART_CHARACTERS]
    sentences = [match.end() for match in _SENTENCE_END.finditer(stretch, SEGMENT_PART_CHARACTERS // 3)]
    if sentences:
        return at + sentences[-1]
    space = stretch.rfind(" ", 1)
    if space > 0:
        return at + space
    if _UNSPACED_SCRIPTS.match(stretch[-1]) and _UNSPACED_SCRIPTS.match(text[at + SEGMENT_PART_CHARACTERS]):
        return at + SEGMENT_PART_CHARACTERS
    later = text.find(" ", at + SEGMENT_PART_CHARACTERS)
    return None if later < 0 else later


_PAUSE = 2000  # milliseconds of silence after which the text goes on in a new line


@dataclass(frozen=True, slots=True)
class JoinedTranscript:
    """`places[i]` is the segment that what was sent as number i begins with, or the next one where it was left out.

    `duration_given`: whether the sender said it (it may have been replaced).
    """

    text: str
    segments: Segments
    places: Sequence[int]
    duration: int  # milliseconds, UNKNOWN when neither said nor to be seen
    duration_given: bool = False


def join_segments(rows: Sequence[TranscriptRow], duration: int, repairs: RepairCounter) -> JoinedTranscript:
    """Raises InvalidInput (`empty_transcript`) or TooLarge (`too_many_segments`, `too_many_speakers`)."""
    said = [row for row in rows if row.text]
    repairs.count("empty_segments", len(rows) - len(said))
    if not said:
        raise InvalidInput("empty_transcript", "The transcript has no words.")
    said = _in_order(said, repairs)
    given = duration != UNKNOWN_TIME
    duration = _reconcile_times(said, duration, repairs)
    parts = _cut(said, repairs)
    check_segment_count(len(parts))
    text, offsets = _text(parts)
    names = {name: i for i, name in enumerate(dict.fromkeys(part.speaker for part in parts if part.speaker))}
    if len(names) > MAX_SPEAKERS:
        raise TooLarge("too_many_speakers", f"A talk may have {MAX_SPEAKERS:,} speakers.", limit=MAX_SPEAKERS)
    speakers = array("h", (names.get(part.speaker, UNKNOWN_TIME) for part in parts))
    starts, ends = array("i", (part.start for part in parts)), array("i", (part.end for part in parts))
    segments = Segments(array("i", offsets), starts, ends, speakers, tuple(names))
    return JoinedTranscript(text, segments, _places(parts, len(rows)), duration, given)


def _cut(rows: list[TranscriptRow], repairs: RepairCounter) -> list[TranscriptRow]:
    parts: list[TranscriptRow] = []
    for row in rows:
        before = len(parts)
        parts += split_long_segment(row)
        repairs.count("long_segments", len(parts) - before > 1)
    return parts


def _in_order(rows: list[TranscriptRow], repairs: RepairCounter) -> list[TranscriptRow]:
    """By their starts; one without a start stays behind the one before it."""
    keys, last, unordered = [], UNKNOWN_TIME, 0
    for row in rows:
        if row.start != UNKNOWN_TIME:
            unordered += row.start < last
            last = row.start
        keys.append(last)
    if not unordered:
        return rows
    repairs.count("unordered_segments", unordered)
    order = sorted(range(len(rows)), key=keys.__getitem__)  # stable
    return [rows[i] for i in order]


def _reconcile_times(rows: list[TranscriptRow], duration: int, repairs: RepairCounter) -> int:
    """Gives each an end that is known, not before its start and not after the next one's; the duration that results."""
    following, missing, reversed_, overlapping, alone = UNKNOWN_TIME, 0, 0, 0, 0
    given = duration
    if duration != UNKNOWN_TIME:
        duration = max(duration, *(row.start for row in rows))
    for row in reversed(rows):
        if row.start == UNKNOWN_TIME:
            alone += row.end != UNKNOWN_TIME
            row.end = UNKNOWN_TIME
            continue
        if row.end == UNKNOWN_TIME:
            row.end, missing = (following if following != UNKNOWN_TIME else duration), missing + 1
        elif row.end < row.start:
            row.end, reversed_ = (following if following != UNKNOWN_TIME else duration), reversed_ + 1
        elif UNKNOWN_TIME != following < row.end:
            row.end, overlapping = following, overlapping + 1
        following = row.start
    repairs.count("ends_without_start", alone)
    repairs.count("missing_ends", missing)
    repairs.count("end_before_start", reversed_)
    repairs.count("overlapping_segments", overlapping)
    last = max(max(row.start, row.end) for row in rows)
    if UNKNOWN_TIME != given < last:
        repairs.count("beyond_duration", sum(1 for row in rows if max(row.start, row.end) > given))
    return max(duration, last)


def _text(parts: list[TranscriptRow]) -> tuple[str, list[int]]:
    """The whole text and where each part begins in it."""
    pieces: list[str] = []
    offsets, at = [], 0
    for part, after in [*pairwise(parts), (parts[-1], None)]:
        offsets.append(at)
        joiner = "" if after is None else _separator_between(part, after)
        pieces += (part.text, joiner)
        at += len(part.text) + len(joiner)
    return "".join(pieces), offsets


def _separator_between(before: TranscriptRow, after: TranscriptRow) -> str:
    silent = UNKNOWN_TIME not in (before.end, after.start) and after.start - before.end >= _PAUSE
    if before.ends_paragraph or silent or before.speaker != after.speaker:
        return "\n"
    return "" if is_written_together(before.text, after.text) else " "


def _places(parts: list[TranscriptRow], sent: int) -> Sequence[int]:
    places = array("i", [UNKNOWN_TIME]) * sent
    for number in range(len(parts) - 1, -1, -1):
        places[parts[number].sent] = number
    following = len(parts) - 1
    for i in range(sent - 1, -1, -1):
        if places[i] == UNKNOWN_TIME:
            places[i] = following
        following = places[i]
    return places
