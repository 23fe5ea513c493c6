"""An encoder whose model runs on batches of windows, and goes on with smaller ones where the memory ends."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from models.batching import length_batches
from models.encoder import PieceEncoder, finite_vector
from models.windows import Window
from services.errors import Overloaded
from services.vectors import EMPTY, SparseVector

log = logging.getLogger("sparsewell.encoder")


class BatchedEncoder(PieceEncoder, ABC):
    """`batch_pieces` is the budget of padded pieces of one run of the model, `place` where it runs, in a word."""

    batch_pieces: int
    place: str

    @abstractmethod
    def run(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """One run of the model on piece ids, special ones left out: ids and weights, both [rows, k]."""

    @abstractmethod
    def _length(self, pieces: int) -> int:
        """What a window of so many pieces takes of the budget when it is alone."""

    @abstractmethod
    def _memory_ended(self, error: Exception) -> bool:
        """Whether a run failed because there was not enough memory for its batch."""

    def encode(self, windows: Sequence[Window]) -> list[SparseVector]:
        """As `models.encoder.Encoder.encode`. Where the memory ends, the budget is halved for good.

        Raises Overloaded (`out_of_memory`) when not even a window by itself fits: others may have the memory now.
        """
        vectors = [EMPTY] * len(windows)
        waiting = [position for position, window in enumerate(windows) if window.piece_ids]
        while waiting:
            lengths = [self._length(len(windows[position].piece_ids)) for position in waiting]
            done: set[int] = set()
            for batch in length_batches(lengths, self.batch_pieces):
                rows = [waiting[row] for row in batch]
                found = self._run_or_halve([windows[position].piece_ids for position in rows], lengths[batch[0]])
                if found is None:
                    break
                for position, ids, weights in zip(rows, *found, strict=True):
                    vectors[position] = finite_vector(ids, weights, self.manifest.name, position, windows[position])
                done.update(rows)
            waiting = [position for position in waiting if position not in done]
        return vectors

    def _run_or_halve(self, rows: Sequence[Sequence[int]], longest: int) -> tuple[np.ndarray, np.ndarray] | None:
        """`run`; None after the memory was not enough and the budget was halved."""
        try:
            return self.run(rows)
        except Exception as error:  # the runtimes' errors share no base but Exception
            if not self._memory_ended(error):
                raise
        # (outside of the handler, where the error's frames no longer hold the tensors)
        self._halve(rows, longest)
        return None

    def _halve(self, rows: Sequence[Sequence[int]], longest: int) -> None:
        if len(rows) == 1:
            raise Overloaded(
                "out_of_memory",
                f"The encoder {self.manifest.name} has not enough memory on {self.place} for one window of "
                f"{len(rows[0])} pieces: choose a smaller window, fewer processes, or a machine with more memory.",
            )
        self.batch_pieces = max(longest, len(rows) * longest // 2)
        log.warning("out of memory on %s: batches have %d pieces from now on", self.place, self.batch_pieces)
