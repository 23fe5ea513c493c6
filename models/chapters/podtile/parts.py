"""Which lines are read together: a talk is longer than what a model reads at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """Lines `first` to `end` (exclusive). Chapters that begin at `settled` or later are left to the next part, which
    reads the same lines with more of what follows."""

    first: int
    end: int
    settled: int


def next_part(pieces: Sequence[int], first: int, room: int, ahead: float) -> Part:
    """The part that begins with the line `first`: as many lines as `room` pieces hold, at least one.

    `pieces` of each line; `ahead` is the share of the room whose lines are read again.
    """
    end, used = first, 0
    while end < len(pieces) and (end == first or used + pieces[end] <= room):
        used += pieces[end]
        end += 1
    if end == len(pieces):
        return Part(first, end, end)
    settled, seen = end, 0
    while settled > first + 1 and seen + pieces[settled - 1] <= ahead * room:
        settled -= 1
        seen += pieces[settled]
    return Part(first, end, settled)
