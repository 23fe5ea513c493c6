"""Cuts a long text into overlapping windows of the encoder's own pieces, so that nothing is cut off silently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.errors import InvalidInput

Offsets = Sequence[tuple[int, int]]

_SENTENCE_ENDS = frozenset(".!?…。！？؟।")


@dataclass(frozen=True, slots=True)
class Window:
    """Characters `start` to `end` (exclusive) of a text, and the vocabulary ids of its pieces, special ones left out.

    A stretch without pieces (white space, control characters) makes a window with no ids.
    """

    start: int
    end: int
    piece_ids: tuple[int, ...]


def _begins_word(text: str, offsets: Offsets, index: int) -> bool:
    return offsets[index][0] > offsets[index - 1][1]


def _begins_sentence(text: str, offsets: Offsets, index: int) -> bool:
    """Whether a line or a sentence ends just before the piece `index`."""
    before, after = offsets[index - 1][1], offsets[index][0]
    if "\n" in text[before:after]:
        return True
    last = text[before - 1 : before]
    return last in _SENTENCE_ENDS and (after > before or last in "。！？")


def _best_cut(text: str, offsets: Offsets, candidates: range) -> int:
    """The first candidate that begins a sentence or a line, else the first that begins a word, else the first."""
    word = None
    for index in candidates:
        if _begins_sentence(text, offsets, index):
            return index
        if word is None and _begins_word(text, offsets, index):
            word = index
    return candidates[0] if word is None else word


def cut_windows(text: str, piece_ids: Sequence[int], offsets: Offsets, pieces: int, overlap: int) -> list[Window]:
    """Windows of at most `pieces` pieces; neighbours share at most `overlap` pieces and at least half of that.

    `offsets` holds for each piece its characters in `text` (start, end), in order. A window ends and begins at the
    end of a sentence or line when there is one among the last eighth of its pieces (or in the overlap), otherwise
    between words, otherwise anywhere. Every character belongs to a window: what lies between two pieces goes with
    the piece before it. An empty text has no window. Takes time linear in the text.

    Raises InvalidInput (`bad_window`) unless 1 <= pieces and 0 <= overlap <= pieces / 2.
    """
    if pieces < 1 or overlap < 0 or overlap * 2 > pieces:
        raise InvalidInput(
            "bad_window", f"A window has at least one piece and overlaps by at most half: {pieces=}, {overlap=}."
        )
    if not text:
        return []
    windows: list[Window] = []
    total = len(piece_ids)
    first = start = 0
    while total - first > pieces:
        limit = first + pieces
        after = _best_cut(text, offsets, range(limit, limit - pieces // 8 - 1, -1))
        end = offsets[after][0]
        windows.append(Window(start, end, tuple(piece_ids[first:after])))
        first = _best_cut(text, offsets, range(after - overlap, after - (overlap + 1) // 2 + 1)) if overlap else after
        start = offsets[first][0]
    windows.append(Window(start, len(text), tuple(piece_ids[first:])))
    return windows
