"""A segment while a transcript is read: what any of the formats says about a stretch of talk."""

import re
from dataclasses import dataclass
from typing import Any

from services.errors import InvalidInput, TooLarge
from services.talk.segments import UNKNOWN, milliseconds

MAX_SEGMENTS = 100_000  # ten hours word by word
MAX_SPEAKERS = 1000
MAX_SPEAKER = 200  # characters of a name
_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2}(?:[.,]\d{1,3})?)", re.ASCII)


@dataclass(slots=True)
class Row:
    """`start` and `end` in milliseconds or UNKNOWN. `sent`: its place in what was sent, from 0; `ends_paragraph`: the
    text goes on in a new line after it."""

    text: str
    start: int = UNKNOWN
    end: int = UNKNOWN
    speaker: str = ""
    sent: int = 0
    ends_paragraph: bool = False


def one_line(text: str) -> str:
    """Without line breaks and runs of spaces."""
    return " ".join(text.split())


def moment(value: Any, where: str) -> int:
    """A time as milliseconds: a number of seconds, or a clock as in `1:02:03.5`. None: UNKNOWN.

    Raises InvalidInput (`bad_time`), naming `where`.
    """
    if value is None:
        return UNKNOWN
    seconds = value
    if isinstance(value, str) and (clock := _CLOCK.fullmatch(value.strip())):
        seconds = int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + float(clock[3].replace(",", "."))
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidInput("bad_time", f"{where} must be a number of seconds or a time as in 1:02:03.5.")
    try:
        return milliseconds(seconds)
    except InvalidInput as error:
        raise InvalidInput(error.code, f"{where}: {error.detail}") from None


def checked_speaker(value: Any, where: str) -> str:
    """A name in one line; empty for none. Raises InvalidInput (`bad_segments`)."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_SPEAKER:
        raise InvalidInput("bad_segments", f"{where} must be a name of {MAX_SPEAKER} characters at most.")
    return one_line(value)


def check_count(number: int) -> None:
    """Raises TooLarge (`too_many_segments`)."""
    if number > MAX_SEGMENTS:
        raise TooLarge(
            "too_many_segments", f"A talk may have {MAX_SEGMENTS:,} segments; this has {number:,}.", limit=MAX_SEGMENTS
        )
