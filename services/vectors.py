"""Sparse vectors as Lucene keeps them: vocabulary ids and weights of nine significant bits.

A rank_features weight is stored as the term frequency `floatToIntBits(w) >>> 15` (Lucene's FeatureField). For a
positive float that leaves 8 bits of exponent and 8 of mantissa, so two bytes hold exactly what the index holds, and a
dot product over truncated weights predicts the engine's score.
"""

import base64
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from services.errors import InvalidInput

Ids = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]

_DROPPED_BITS = 15
_BITS, _FLOAT = struct.Struct("=I"), struct.Struct("=f")
# FeatureField refuses a document for any weight below the smallest normal float32.
SMALLEST_WEIGHT = float(np.finfo(np.float32).tiny)


def lucene_truncate(weights: npt.ArrayLike) -> Weights:
    """Weights as FeatureField stores them: float32 with the low 15 bits cleared, at most 0.39 % lower."""
    bits = np.ascontiguousarray(weights, dtype=np.float32).view(np.uint32)
    return ((bits >> _DROPPED_BITS) << _DROPPED_BITS).view(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """`ids` int32 [n], ascending and distinct, in [0, 65535]; `weights` float32 [n], positive, finite, truncated."""

    ids: Ids
    weights: Weights

    @classmethod
    def of(cls, ids: npt.ArrayLike, weights: npt.ArrayLike) -> Self:
        """Sorts by id, truncates, drops weights too small to store.

        Raises InvalidInput for NaN, infinite or negative weights, for ids outside two bytes and for repeated ids.
        """
        i = np.ascontiguousarray(ids, dtype=np.int64)
        w = np.ascontiguousarray(weights, dtype=np.float32)
        if i.shape != w.shape or i.ndim != 1:
            raise InvalidInput("bad_vector", f"A vector has as many ids as weights; got {i.shape} and {w.shape}.")
        if not np.isfinite(w).all() or (w < 0).any():
            raise InvalidInput("bad_vector", "A vector's weights must be finite and not negative.")
        if i.size and (i.min() < 0 or i.max() > 0xFFFF):
            raise InvalidInput("bad_vector", "A vector's ids must lie between 0 and 65,535.")
        keep = w >= SMALLEST_WEIGHT
        i, w = i[keep], w[keep]
        order = np.argsort(i, kind="stable")
        i = i[order]
        if (np.diff(i) == 0).any():
            raise InvalidInput("bad_vector", "A vector names each id once.")
        return cls(i.astype(np.int32), lucene_truncate(w[order]))

    def __len__(self) -> int:
        return int(self.ids.size)

    def features(self) -> dict[str, float]:
        """The value of a rank_features field: vocabulary id (a name without dots) to weight."""
        return dict(zip(map(str, self.ids.tolist()), self.weights.tolist(), strict=True))

    def top(self, count: int) -> "SparseVector":
        """The `count` heaviest pieces; of equal weights the lower id stays."""
        if len(self) <= count:
            return self
        kept = np.sort(np.lexsort((self.ids, -self.weights))[:count])
        return SparseVector(self.ids[kept], self.weights[kept])

    def pack(self) -> str:
        """Base64 of the ids (uint16, little endian) followed by the weights' 16 stored bits: 4 bytes a piece."""
        bits = (self.weights.view(np.uint32) >> _DROPPED_BITS).astype("<u2")
        return base64.b64encode(self.ids.astype("<u2").tobytes() + bits.tobytes()).decode("ascii")

    @classmethod
    def unpack(cls, text: str) -> Self:
        """The inverse of `pack`. Raises InvalidInput for text that `pack` cannot have written."""
        try:
            raw = np.frombuffer(base64.b64decode(text, validate=True), dtype="<u2")
        except ValueError:
            raise InvalidInput("bad_vector", "A packed vector is base64 of four bytes a piece.") from None
        if raw.size % 2:
            raise InvalidInput("bad_vector", "A packed vector is base64 of four bytes a piece.")
        half = raw.size // 2
        weights = (raw[half:].astype(np.uint32) << _DROPPED_BITS).view(np.float32)
        return cls(raw[:half].astype(np.int32), weights)

    def dot(self, query: Mapping[int, float]) -> float:
        """The score of this document for query weights by id, in double precision."""
        score = 0.0
        for i, weight in zip(self.ids.tolist(), self.weights.tolist(), strict=True):
            score += query.get(i, 0.0) * weight
        return score


@dataclass(frozen=True, slots=True)
class PackedVector:
    """A packed vector as it is stored, for those who want one dot product of it and nothing else.

    A search looks a handful of query pieces up in each window of its hits: three times as fast as unpacking them.
    """

    text: str

    def dot(self, query: Mapping[int, float]) -> float:
        """As `SparseVector.dot`, to the last bit. Raises InvalidInput for text that `pack` cannot have written."""
        try:
            words = array("H", base64.b64decode(self.text, validate=True))
        except ValueError:
            raise InvalidInput("bad_vector", "A packed vector is base64 of four bytes a piece.") from None
        if len(words) % 2:
            raise InvalidInput("bad_vector", "A packed vector is base64 of four bytes a piece.")
        if sys.byteorder == "big":
            words.byteswap()
        half = len(words) // 2
        score = 0.0
        # in the order of ids, as the unpacked vector is summed
        for piece in sorted(query):
            at = bisect_left(words, piece, 0, half)
            if at < half and words[at] == piece:
                score += query[piece] * _FLOAT.unpack(_BITS.pack(words[half + at] << _DROPPED_BITS))[0]
        return score


EMPTY = SparseVector(np.empty(0, np.int32), np.empty(0, np.float32))


def merge_max(vectors: Iterable[SparseVector]) -> SparseVector:
    """The document's vector: for each piece the largest weight of any window (max pooling goes on over windows)."""
    several = list(vectors)
    if len(several) == 1:
        return several[0]
    if not several:
        return EMPTY
    ids = np.concatenate([v.ids for v in several])
    weights = np.concatenate([v.weights for v in several])
    order = np.lexsort((-weights, ids))
    ids, weights = ids[order], weights[order]
    first = np.ones(ids.size, dtype=bool)
    first[1:] = ids[1:] != ids[:-1]
    return SparseVector(ids[first], weights[first])
