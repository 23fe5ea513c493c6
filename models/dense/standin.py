"""A stand-in for a dense encoder: a text is the sum of its pieces' random vectors. Deterministic, in microseconds.

For tests of everything around a dense encoder. Texts that share pieces are similar, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.tokenising import Pieces
from models.windows import Window
from services.dense_vectors import Dense
from services.known_dense import KnownDense
from services.manifest import WEIGHTS_ROOT, WindowSettings


class StandInDense:
    """See `models.dense.model.DenseModel`. Cuts texts with the tokeniser of the sparse stand-in."""

    def __init__(self, known: KnownDense) -> None:
        self.name, self.fingerprint = known.identity.name, known.identity.fingerprint
        self.width = known.identity.width
        self._pieces = Pieces.load(WEIGHTS_ROOT / "standin" / "tokenizer.json")
        size = max(self._pieces.vocabulary().values()) + 1
        self._table = np.random.default_rng(0).standard_normal((size, self.width), dtype=np.float32)

    def encode_queries(self, texts: Sequence[str]) -> Dense:
        return self._vectors(self._pieces.ids(texts))

    def encode_passages(self, texts: Sequence[str]) -> Dense:
        return self._vectors(self._pieces.ids(texts))

    def windows(self, text: str, window: WindowSettings) -> list[Window]:
        return self._pieces.windows(text, window.pieces, window.overlap)

    def encode_windows(self, windows: Sequence[Window]) -> Dense:
        return self._vectors([window.piece_ids for window in windows])

    def _vectors(self, rows: Sequence[Sequence[int]]) -> Dense:
        sums = [self._table[list(row)].sum(axis=0) for row in rows]
        found = np.array(sums, dtype=np.float32).reshape(-1, self.width)
        length = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.maximum(length, 1e-12), dtype=np.float32)
