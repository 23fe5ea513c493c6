"""Transcripts that once froze a process: 40 KB took seven seconds, and no other request was answered meanwhile."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from services.errors import SparsewellError
from services.talk.normalise import RepairCounter
from services.talk.readers import parse_plain_transcript, parse_subtitles

HALF_A_MEBIBYTE = 2**19
# The limit of segments refuses most of these texts within milliseconds; a parser alone takes about a second.
MOST_SECONDS = 5.0
HOSTILE = {
    "blank lines after a number": "1" + "\n" * HALF_A_MEBIBYTE,
    "numbers and blank lines": "1\n\n\n\n" * (HALF_A_MEBIBYTE // 5),
    "digits": "1" * HALF_A_MEBIBYTE,
    "spaces": "a" + " " * HALF_A_MEBIBYTE + "b",
    "a voice without an end": "<v" + " " * HALF_A_MEBIBYTE,
    "many voices without an end": "<v " * (HALF_A_MEBIBYTE // 3),
}


def spend(parse: Callable[..., object], *arguments: object) -> float:
    began = time.thread_time()
    with suppress(SparsewellError):  # a clear refusal is as good as an answer
        parse(*arguments)
    return time.thread_time() - began


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_plain_transcripts_take_seconds_at_most(text: str) -> None:
    assert spend(parse_plain_transcript, text) < MOST_SECONDS


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_subtitles_take_seconds_at_most(text: str) -> None:
    cue = f"WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n{' '.join(text.split(chr(10)))}\n"
    assert spend(parse_subtitles, cue, "vtt", RepairCounter()) < MOST_SECONDS
