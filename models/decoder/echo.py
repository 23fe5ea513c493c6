"""Echo input: a decoder reads the text twice and only the second copy is pooled (arXiv 2408.11119, 2402.15449).

Under a causal mask a position sees what stands before it. In the second copy every position has seen the whole text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Echo:
    """Vocabulary ids that stand before the first copy (the model's beginning of sequence) and between the copies."""

    before: tuple[int, ...]
    between: tuple[int, ...]

    def positions(self, pieces: int) -> int:
        """How many positions of the model a window of so many pieces takes."""
        return len(self.before) + len(self.between) + 2 * pieces

    def room(self, positions: int) -> int:
        """The longest window, in pieces, for a model of so many positions."""
        return (positions - self.positions(0)) // 2

    def row(self, pieces: Sequence[int]) -> list[int]:
        """What the model reads for one window."""
        return [*self.before, *pieces, *self.between, *pieces]


@dataclass(frozen=True, slots=True)
class EchoBatch:
    """int64 [rows, length], padded on the right; `pooling_mask` is 1 on the second copies and nowhere else."""

    input_ids: Matrix
    attention_mask: Matrix
    pooling_mask: Matrix


def echo_batch(rows: Sequence[Sequence[int]], echo: Echo) -> EchoBatch:
    """The batch of windows given as piece ids. A window without pieces has nothing to pool.

    Padding needs no id of its own: under a causal mask no position sees what stands to its right.
    """
    length = max((echo.positions(len(row)) for row in rows), default=0)
    input_ids = np.zeros((len(rows), length), dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    pooling_mask = np.zeros_like(input_ids)
    for index, row in enumerate(rows):
        ids = echo.row(row)
        input_ids[index, : len(ids)] = ids
        attention_mask[index, : len(ids)] = 1
        pooling_mask[index, len(ids) - len(row) : len(ids)] = 1
    return EchoBatch(input_ids, attention_mask, pooling_mask)
