"""Sparse vectors as Lucene keeps them: vocabulary ids and weights of nine significant bits.

A rank_features weight is stored as the term frequency `floatToIntBits(w) >>> 15` (Lucene's FeatureField). For a
positive float that leaves 8 bits of exponent and 8 of mantissa, so two bytes hold exactly what the index holds, and a
dot product over truncated weights predicts the engine's score.

Dense vectors as they are stored beside a document, and what a search computes with them.

A document has one vector a window, each of length 1 and kept as whole numbers from -127 to 127 with a scale: 388 bytes
at a width of 384. All windows of a document are one binary doc value, because Lucene sorts several values of a
document and drops equal ones. What the rounding costs: docs/decisions/0141-dense-vectors-as-doc-values.md.
"""

import base64
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from services.errors import InvalidInput

DenseArray = npt.NDArray[np.float32]
_MAX_CODE = 127
# Windows that are stored of one document: 50 KB at a width of 384, and a search reads as many as it reranks.
MAX_STORED_WINDOWS = 128


def window_row_dtype(width: int) -> np.dtype[np.void]:
    """How a window is stored."""
    return np.dtype([("scale", "<f4"), ("codes", "i1", (width,))])


def pack_dense_vectors(vectors: npt.ArrayLike) -> str:
    """Base64 of vectors [windows, width]. Raises InvalidInput (`bad_vector`) for what is not finite or no matrix."""
    given = np.asarray(vectors, dtype=np.float32)
    if given.ndim != 2 or not given.shape[1] or not np.isfinite(given).all():
        raise InvalidInput("bad_vector", "Dense vectors are rows of finite numbers.")
    scale = np.abs(given).max(axis=1, initial=0.0) / _MAX_CODE
    rows = np.empty(len(given), dtype=window_row_dtype(given.shape[1]))
    rows["scale"] = scale
    rows["codes"] = np.rint(given / np.where(scale > 0, scale, 1.0)[:, None])
    return base64.b64encode(rows.tobytes()).decode("ascii")


def merge_neighbouring_windows(
    vectors: npt.NDArray[np.floating], most: int = MAX_STORED_WINDOWS
) -> npt.NDArray[np.floating]:
    """At most `most` rows of [windows, width]: neighbours of a very long document share a row, their mean.

    Every window plays a part; what is lost is which of the neighbours it was.
    """
    if len(vectors) <= most:
        return vectors
    groups = np.array_split(np.asarray(vectors, dtype=np.float32), most)
    return np.array([normalise_vector(group.mean(axis=0)) for group in groups], dtype=np.float32)


def normalise_vector(vector: DenseArray) -> DenseArray:
    """The vector [width] at length 1; one of zeros stays as it is."""
    length = float(np.linalg.norm(vector))
    return vector if length < 1e-12 else np.asarray(vector / length, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class StoredDenseVectors:
    """The windows of several documents: rows `starts[i]` to `starts[i + 1]` are those of document `ids[i]`."""

    ids: list[str]
    starts: npt.NDArray[np.int64]
    rows: DenseArray

    @classmethod
    def read(cls, texts: Mapping[str, str], width: int) -> "StoredDenseVectors":
        """From what `pack` made, by document; OpenSearch gives it without padding. Documents without a vector are
        left out. Raises InvalidInput (`bad_vector`) for anything else."""
        packed: dict[str, bytes] = {}
        row = window_row_dtype(width).itemsize
        for name, text in texts.items():
            try:
                data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            except ValueError:
                data = b"?"
            if len(data) % row:
                raise InvalidInput("bad_vector", f"A stored dense vector has {row:,} bytes a window.")
            if data:
                packed[name] = data
        stored = np.frombuffer(b"".join(packed.values()), dtype=window_row_dtype(width))
        lengths = np.array([len(data) // row for data in packed.values()], dtype=np.int64)
        rows = stored["codes"].astype(np.float32) * stored["scale"][:, None]
        return cls(list(packed), np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), rows)

    def scores(self, query: DenseArray) -> dict[str, float]:
        """The dot product of each document's best window with the query [width]."""
        if not self.ids:
            return {}
        best = np.maximum.reduceat(self.rows @ query, self.starts[:-1])
        return dict(zip(self.ids, best.tolist(), strict=True))

    def best_windows(self, query: DenseArray, ids: Sequence[str]) -> DenseArray:
        """[found, width]: the best window of each of these documents that has one."""
        place = {name: position for position, name in enumerate(self.ids)}
        found = [place[name] for name in ids if name in place]
        similar = self.rows @ query
        rows = [int(self.starts[at] + similar[self.starts[at] : self.starts[at + 1]].argmax()) for at in found]
        return self.rows[rows]


def apply_dense_feedback(query: DenseArray, documents: DenseArray, weight: float) -> DenseArray:
    """Rocchio: the query [width] moved to the mean of documents [n, width] that are taken as relevant, length 1.

    (1 - weight) x query + weight x mean; ANCE-PRF (arXiv 2108.13454) learns this step, the average is its baseline.
    No documents leave the query as it is.
    """
    if not len(documents):
        return query
    return normalise_vector((1 - weight) * query + weight * documents.mean(axis=0))


IdArray = npt.NDArray[np.int32]
WeightArray = npt.NDArray[np.float32]

_DROPPED_BITS = 15
_BITS, _FLOAT = struct.Struct("=I"), struct.Struct("=f")
# FeatureField refuses a document for any weight below the smallest normal float32.
SMALLEST_WEIGHT = float(np.finfo(np.float32).tiny)


def truncate_weights(weights: npt.ArrayLike) -> WeightArray:
    """Weights as FeatureField stores them: float32 with the low 15 bits cleared, at most 0.39 % lower."""
    bits = np.ascontiguousarray(weights, dtype=np.float32).view(np.uint32)
    return ((bits >> _DROPPED_BITS) << _DROPPED_BITS).view(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """`ids` int32 [n], ascending and distinct, in [0, 65535]; `weights` float32 [n], positive, finite, truncated."""

    ids: IdArray
    weights: WeightArray

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
        return cls(i.astype(np.int32), truncate_weights(w[order]))

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


EMPTY_VECTOR = SparseVector(np.empty(0, np.int32), np.empty(0, np.float32))


def merge_max(vectors: Iterable[SparseVector]) -> SparseVector:
    """The document's vector: for each piece the largest weight of any window (max pooling goes on over windows)."""
    several = list(vectors)
    if len(several) == 1:
        return several[0]
    if not several:
        return EMPTY_VECTOR
    ids = np.concatenate([v.ids for v in several])
    weights = np.concatenate([v.weights for v in several])
    order = np.lexsort((-weights, ids))
    ids, weights = ids[order], weights[order]
    first = np.ones(ids.size, dtype=bool)
    first[1:] = ids[1:] != ids[:-1]
    return SparseVector(ids[first], weights[first])
