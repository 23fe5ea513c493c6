"""A sparse teacher: one of our own encoders, passages by its model and queries by its table."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from models.registry import load_encoder
from models.training.pairs import texts_fingerprint
from models.training.vectors import SparseRows
from services.manifest import resolve
from services.query_table import QueryTable
from services.vectors import SparseVector, merge_max

# Enough texts to sort their windows by length, few enough that vectors of windows never pile up.
_TOGETHER = 128


class SparseTeacher:
    """See `models.training.vectors.Teacher`. A passage's vector is what the index would hold: the largest weights over
    its windows, cut to the encoder's top k."""

    def __init__(self, name_or_path: str, *, threads: int = 0) -> None:
        """Raises ConfigurationError, as `models.registry.load_encoder` and `QueryTable.load`."""
        self._encoder = load_encoder(name_or_path, threads=threads)
        self._table = QueryTable.load(resolve(name_or_path))
        self.name = self._encoder.manifest.name
        window = self._encoder.manifest.window
        self.fingerprint = texts_fingerprint([self._encoder.fingerprint, f"{window.pieces} {window.overlap}"])

    def encode_queries(self, texts: Sequence[str]) -> SparseRows:
        lengths, ids, weights = [0], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
        for text in texts:
            # (a half of a surrogate, which the tokeniser cannot take, is a question mark)
            found = self._table.encode(text.encode("utf-8", "replace").decode(), max_pieces=sys.maxsize)
            order = np.argsort(found.ids)
            lengths.append(len(found.ids))
            ids.append(np.array(found.ids, dtype=np.int32)[order])
            weights.append(np.array(found.weights, dtype=np.float32)[order])
        return SparseRows.of(np.array(lengths[1:], dtype=np.int64), np.concatenate(ids), np.concatenate(weights))

    def encode_passages(self, texts: Sequence[str]) -> SparseRows:
        """Raises InvalidInput (`not_finite_weights`) for NaN and infinity."""
        vectors: list[SparseVector] = []
        for start in range(0, len(texts), _TOGETHER):
            cut = [self._encoder.windows(text) for text in texts[start : start + _TOGETHER]]
            encoded = iter(self._encoder.encode([window for windows in cut for window in windows]))
            vectors += [
                merge_max([next(encoded) for _ in windows]).top(self._encoder.manifest.top_k) for windows in cut
            ]
        return SparseRows.of_vectors(vectors)
