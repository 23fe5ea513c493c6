"""Transcripts as subtitles: WebVTT and SubRip, read by webvtt-py (docs/decisions/0190)."""

import html
import re
from collections.abc import Iterator
from typing import Literal

from services.errors import InvalidInput
from services.talk.repairs import Repairs
from services.talk.row import MAX_SPEAKER, Row, check_count, one_line
from services.talk.segments import LONGEST_MS
from services.talk.speakers import without_prefixes

# No tag holds a `<`: with `[^>]` a line of many of them would be searched to its end from each.
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?[ \t\n]+([^<>]*)>")
_TAG = re.compile(r"</?[A-Za-z:.][^<>]*>|<\d[\d:.]*>|</>|\{\\[^{}]*\}")  # (the last is of SubRip: {\\an8})
# What captions that roll do: a cue begins with the line that the cue before it ended with. Below this share of the
# cues it is somebody who says the same again.
_ROLLING = 0.25


def subtitles(content: str, form: Literal["vtt", "srt"], repairs: Repairs) -> list[Row]:
    """The cues of a file, split where the voice changes.

    Raises InvalidInput (`bad_transcript`) for what is no such file, TooLarge (`too_many_segments`).
    """
    from webvtt import WebVTT  # 50 ms that only what reads subtitles pays
    from webvtt.errors import MalformedCaptionError, MalformedFileError

    text = content.lstrip("\ufeff \t\r\n")
    check_count(text.count("-->"))  # before an object is made of each
    try:
        captions = WebVTT.from_buffer([text], format=form).captions
    except (MalformedFileError, MalformedCaptionError):
        wanted = "begins with WEBVTT" if form == "vtt" else "begins with the number 1 and a line of times"
        raise InvalidInput(
            "bad_transcript", f"The transcript is not what its type says: such a file {wanted}."
        ) from None
    if not captions and "-->" in text:
        raise InvalidInput("bad_transcript", "No cue of the transcript has readable times.")
    # (in a comment the arrow is not allowed, so each stands for a cue)
    repairs.count("unread_cues", max(0, text.count("-->") - len(captions)))
    rows: list[Row] = []
    for caption, lines in zip(captions, _unrolled([one.lines for one in captions], repairs), strict=True):
        start, end = caption.start_time.in_milliseconds(), caption.end_time.in_milliseconds()
        if max(start, end) > LONGEST_MS:
            raise InvalidInput("bad_time", f"The cue at {caption.start} lies beyond the longest time there is.")
        voices = list(_voices("\n".join(lines)))
        whole, at, length = sum(len(words) for _, words in voices) or 1, 0, max(0, end - start)
        for speaker, words in voices:  # of one cue, they share its time by what they say
            begun, at = at, at + len(words)
            until = end if end < start else start + length * at // whole
            repairs.count("long_names", len(speaker) > MAX_SPEAKER)
            rows.append(Row(words, start + length * begun // whole, until, speaker[:MAX_SPEAKER]))
    if any(row.speaker for row in rows):
        _go_on(rows)
    else:
        rows = without_prefixes(rows)
    for i, row in enumerate(rows):
        row.sent = i
    return rows


def _go_on(rows: list[Row]) -> None:
    """Podcasts name a voice where it changes: what has none is said by the one before."""
    speaker = ""
    for row in rows:
        row.speaker = speaker = row.speaker or speaker


def _voices(raw: str) -> Iterator[tuple[str, str]]:
    """(Name or nothing, words) of a cue; one without any words is one empty row, which is counted later."""
    if "<" not in raw:
        yield "", _plain(raw)
        return
    before, *spans = _VOICE.split(raw)
    found = [
        ("", _plain(before)),
        *((_plain(spans[i]), _plain(spans[i + 1])) for i in range(0, len(spans), 2)),
    ]
    yield from [one for one in found if one[1]] or [("", "")]


def _plain(raw: str) -> str:
    return one_line(html.unescape(_TAG.sub("", raw)))


def _unrolled(cues: list[list[str]], repairs: Repairs) -> list[list[str]]:
    """Each cue without the lines that the one before it ended with, where that is how the file is made."""
    plain = [[words for line in cue if (words := _plain(line))] for cue in cues]
    repeats = [_repeated(plain[i - 1], plain[i]) if i else 0 for i in range(len(plain))]
    repeating = sum(1 for number in repeats if number)
    if repeating < max(2, _ROLLING * len(cues)):
        return cues
    repairs.count("repeated_captions", sum(repeats))
    kept = [[line for line in cue if _plain(line)][number:] for cue, number in zip(cues, repeats, strict=True)]
    return kept


def _repeated(before: list[str], cue: list[str]) -> int:
    """How many lines `cue` begins with that `before` ended with."""
    most = min(len(before), len(cue), 4)
    return next((number for number in range(most, 0, -1) if before[-number:] == cue[:number]), 0)
