"""Normalisation of a transcript: rows of any format become one text with ordered segments and consistent times.

Each kind of repair has a stable code and is counted and reported once. Segments of more than 1,500 characters are
split, so that a chapter can begin within them.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any

from services.errors import InvalidInput, TooLarge
from services.talk.model import UNKNOWN_TIME, Repair, Segments, to_milliseconds

# docs/talk.md lists the same. Repairs by a chapter engine are reported with its chapters.
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

MAX_SEGMENTS = 100_000  # ten hours word by word
MAX_SPEAKERS = 1000
MAX_SPEAKER_CHARACTERS = 200

# Longer segments are split. This is about a minute and a half of talk.
MAX_SEGMENT_CHARACTERS = 1500
# Size of a part: about a hundred words, the scale at which chapter boundaries are searched.
SEGMENT_PART_CHARACTERS = 600

_PAUSE = 2000  # milliseconds of silence after which the text continues on a new line
_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2}(?:[.,]\d{1,3})?)", re.ASCII)
_SENTENCE_END = re.compile(r"[.!?…][\"'”’»)\]]*(?= )|[。！？]")
_SPACE = re.compile(r"\s")
PIECE_CHARACTERS = 64 * 1024
# Scripts without spaces. No space is inserted between their characters.
_UNSPACED_SCRIPTS = re.compile(r"[\u3000-\u312f\u31a0-\u9fff\uf900-\ufaff\uff00-\uffef]")


class RepairCounter:
    """A counter of repairs while a talk is read."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, code: str, number: int = 1) -> None:
        """Count `number` more repairs of a kind; 0 counts nothing."""
        self._counts[code] += number

    def repairs(self) -> tuple[Repair, ...]:
        """Return the repairs that were made, in the order of the table."""
        return tuple(
            Repair(code, REPAIR_DETAILS[code], self._counts[code]) for code in REPAIR_DETAILS if self._counts[code]
        )


@dataclass(slots=True)
class TranscriptRow:
    """A stretch of a transcript. `start` and `end` are milliseconds or UNKNOWN_TIME.

    `sent`: its position in the input, from 0. `ends_paragraph`: the text continues on a new line after it.
    """

    text: str
    start: int = UNKNOWN_TIME
    end: int = UNKNOWN_TIME
    speaker: str = ""
    sent: int = 0
    ends_paragraph: bool = False


@dataclass(frozen=True, slots=True)
class JoinedTranscript:
    """A transcript as one text with segments.

    `first_segments[i]` is the first segment of row i of the input, or the next one if the row was left out.
    `duration_given`: whether the sender gave a duration (it may have been replaced).
    """

    text: str
    segments: Segments
    first_segments: Sequence[int]
    duration: int  # milliseconds, UNKNOWN_TIME if neither given nor derivable
    duration_given: bool = False


def join_segments(rows: Sequence[TranscriptRow], duration: int, repairs: RepairCounter) -> JoinedTranscript:
    """Join rows into one text with ordered segments and consistent times.

    Raises InvalidInput (`empty_transcript`) or TooLarge (`too_many_segments`, `too_many_speakers`).
    """
    spoken = [row for row in rows if row.text]
    repairs.count("empty_segments", len(rows) - len(spoken))
    if not spoken:
        raise InvalidInput("empty_transcript", "The transcript has no words.")
    spoken = _sort_rows(spoken, repairs)
    duration_given = duration != UNKNOWN_TIME
    duration = _reconcile_times(spoken, duration, repairs)
    parts = _split_rows(spoken, repairs)
    check_segment_count(len(parts))
    text, offsets = _join_texts(parts)
    names = {name: i for i, name in enumerate(dict.fromkeys(part.speaker for part in parts if part.speaker))}
    if len(names) > MAX_SPEAKERS:
        raise TooLarge("too_many_speakers", f"A talk may have at most {MAX_SPEAKERS:,} speakers.", limit=MAX_SPEAKERS)
    speakers = array("h", (names.get(part.speaker, UNKNOWN_TIME) for part in parts))
    starts, ends = array("i", (part.start for part in parts)), array("i", (part.end for part in parts))
    segments = Segments(array("i", offsets), starts, ends, speakers, tuple(names))
    return JoinedTranscript(text, segments, _first_segments(parts, len(rows)), duration, duration_given)


def _sort_rows(rows: list[TranscriptRow], repairs: RepairCounter) -> list[TranscriptRow]:
    """Sort rows by start; a row without a start stays behind its predecessor."""
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
    """Give each timed row an end between its start and the next start, and return the resulting duration."""
    next_start, missing, reversed_, overlapping, without_start = UNKNOWN_TIME, 0, 0, 0, 0
    sent_duration = duration
    if duration != UNKNOWN_TIME:
        duration = max(duration, *(row.start for row in rows))
    for row in reversed(rows):
        if row.start == UNKNOWN_TIME:
            without_start += row.end != UNKNOWN_TIME
            row.end = UNKNOWN_TIME
            continue
        if row.end == UNKNOWN_TIME:
            row.end, missing = (next_start if next_start != UNKNOWN_TIME else duration), missing + 1
        elif row.end < row.start:
            row.end, reversed_ = (next_start if next_start != UNKNOWN_TIME else duration), reversed_ + 1
        elif UNKNOWN_TIME != next_start < row.end:
            row.end, overlapping = next_start, overlapping + 1
        next_start = row.start
    repairs.count("ends_without_start", without_start)
    repairs.count("missing_ends", missing)
    repairs.count("end_before_start", reversed_)
    repairs.count("overlapping_segments", overlapping)
    last = max(max(row.start, row.end) for row in rows)
    if UNKNOWN_TIME != sent_duration < last:
        repairs.count("beyond_duration", sum(1 for row in rows if max(row.start, row.end) > sent_duration))
    return max(duration, last)


def _split_rows(rows: list[TranscriptRow], repairs: RepairCounter) -> list[TranscriptRow]:
    parts: list[TranscriptRow] = []
    for row in rows:
        before = len(parts)
        parts += split_long_segment(row)
        repairs.count("long_segments", len(parts) - before > 1)
    return parts


def split_long_segment(row: TranscriptRow) -> Iterator[TranscriptRow]:
    """Yield the row, or parts of at most `SEGMENT_PART_CHARACTERS` characters if it is longer than
    `MAX_SEGMENT_CHARACTERS`.
    """
    parts = [row.text] if len(row.text) <= MAX_SEGMENT_CHARACTERS else list(_split_text(row.text))
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


def _split_text(text: str) -> Iterator[str]:
    at = 0
    while len(text) - at > SEGMENT_PART_CHARACTERS:
        end = _find_cut(text, at)
        if end is None:
            break
        yield text[at:end]
        at = end
    yield text[at:]


def _find_cut(text: str, at: int) -> int | None:
    """Return where to cut after `at`, or None.

    Prefers the end of the last sentence that fits, then the last space, then the first space after an overlong word.
    """
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


def _join_texts(parts: list[TranscriptRow]) -> tuple[str, list[int]]:
    """Return the text, and where each part begins in it."""
    pieces: list[str] = []
    offsets, at = [], 0
    for part, after in zip_longest(parts, islice(parts, 1, None)):
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


def is_written_together(before: str, after: str) -> bool:
    """Return whether two texts are written without a space between them."""
    return bool(before and after and _UNSPACED_SCRIPTS.match(before[-1]) and _UNSPACED_SCRIPTS.match(after[0]))


def _first_segments(parts: list[TranscriptRow], sent: int) -> Sequence[int]:
    first_segments = array("i", [UNKNOWN_TIME]) * sent
    for number in range(len(parts) - 1, -1, -1):
        first_segments[parts[number].sent] = number
    following = len(parts) - 1
    for i in range(sent - 1, -1, -1):
        if first_segments[i] == UNKNOWN_TIME:
            first_segments[i] = following
        following = first_segments[i]
    return first_segments


def collapse_white_space(text: str) -> str:
    """Return the text with each run of white space as one space."""
    if len(text) <= PIECE_CHARACTERS:
        return " ".join(text.split())
    # A word takes 53 bytes beside its characters, so a long text is split piece by piece.
    pieces = []
    at = 0
    while at < len(text):
        space = _SPACE.search(text, at + PIECE_CHARACTERS)
        end = len(text) if space is None else space.start()
        pieces.append(" ".join(text[at:end].split()))
        at = end
    return " ".join(filter(None, pieces))


def parse_time(value: Any, where: str) -> int:
    """Return a number of seconds, or a clock such as `1:02:03.5`, in milliseconds; UNKNOWN_TIME for None.

    Raises InvalidInput (`bad_time`), naming `where`.
    """
    if value is None:
        return UNKNOWN_TIME
    seconds = value
    if isinstance(value, str) and (clock := _CLOCK.fullmatch(value.strip())):
        seconds = int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + float(clock[3].replace(",", "."))
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidInput("bad_time", f"{where} must be a number of seconds or a time such as 1:02:03.5.")
    try:
        return to_milliseconds(seconds)
    except InvalidInput as error:
        raise InvalidInput(error.code, f"{where}: {error.detail}") from None


def validate_speaker(value: Any, where: str) -> str:
    """Return a name on one line, empty for None. Raises InvalidInput (`bad_segments`)."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_SPEAKER_CHARACTERS:
        raise InvalidInput("bad_segments", f"{where} must be a name of at most {MAX_SPEAKER_CHARACTERS} characters.")
    return collapse_white_space(value)


def check_segment_count(number: int) -> None:
    """Check the number of segments. Raises TooLarge (`too_many_segments`)."""
    if number > MAX_SEGMENTS:
        raise TooLarge(
            "too_many_segments", f"The talk has {number:,} segments; the limit is {MAX_SEGMENTS:,}.", limit=MAX_SEGMENTS
        )
