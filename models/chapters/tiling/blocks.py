"""Cuts a transcript into blocks of about as many words; each begins with a segment wherever that is possible."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from services.talk.segments import Segments

# A run of letters this long counts as several words: languages that put no spaces between words, and noise.
_LETTERS_OF_A_WORD = 6
_SENTENCE_END = re.compile(r"[.!?…؟।](?=\s)\s*|[。！？]\s*|\n\s*")


@dataclass(frozen=True, slots=True)
class Block:
    """Characters `start` to `end` (exclusive). `opens`: a segment begins there, so a chapter may."""

    start: int
    end: int
    opens: bool


def blocks(text: str, segments: Segments, words: int) -> list[Block]:
    """Blocks that cover the text in order. Takes time linear in the text; an empty text has none.

    Segments are put together while they have at most a quarter too many words; one that has more is cut at the ends of
    its sentences, of its words, or anywhere.
    """
    found: list[Block] = []
    begun, held = 0, 0  # where the block in the making begins, and its words
    most = words * 5 // 4
    for start, end in _stretches(text, segments):
        size = length(text, start, end)
        if begun < start and held + size > most:
            found.append(Block(begun, start, True))
            begun, held = start, 0
        if size > most:
            cuts = [start, *_cuts(text, start, end, size, words), end]
            found += [Block(a, b, a == start) for a, b in itertools.pairwise(cuts)]
            begun, held = end, 0
        else:
            held += size
    if begun < len(text):
        if held or not found:
            found.append(Block(begun, len(text), True))
        else:  # white space after the last word
            found[-1] = Block(found[-1].start, len(text), found[-1].opens)
    return found


def length(text: str, start: int, end: int) -> int:
    """Words of a stretch; letters that nothing separates count as words of six."""
    part = text[start:end]
    return max(len(part.split()), len(part) // (2 * _LETTERS_OF_A_WORD))


def _stretches(text: str, segments: Segments) -> Iterator[tuple[int, int]]:
    offsets = list(segments.offsets) or [0]
    for start, end in zip(offsets, [*offsets[1:], len(text)], strict=True):
        if start < end:
            yield start, end


def _cuts(text: str, start: int, end: int, size: int, words: int) -> list[int]:
    """Where a long stretch is cut: into even parts, at the nearest end of a sentence, or else of a word."""
    parts = -(-size // words)
    step = (end - start) / parts
    cuts: list[int] = []
    before = start
    for number in range(1, parts):
        aim = start + round(number * step)
        reach = max(1, int(step / 3))
        low, high = max(before + 1, aim - reach), min(end - 1, aim + reach)
        if low >= high:
            continue
        at = _nearest(aim, [match.end() for match in _SENTENCE_END.finditer(text, low, high)])
        if at is None:
            at = _nearest(aim, [match.end() for match in re.finditer(r"\s+", text[low:high])], low)
        cuts.append(aim if at is None else at)
        before = cuts[-1]
    return cuts


def _nearest(aim: int, places: list[int], shift: int = 0) -> int | None:
    return min((place + shift for place in places), key=lambda place: abs(place - aim), default=None)
