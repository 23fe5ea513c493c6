"""Stored vectors: sparse ones in Lucene's precision, dense ones as int8 windows, and computations on them.

Sparse: a rank_features weight is stored as the term frequency `floatToIntBits(w) >>> 15` (Lucene's FeatureField). That
keeps 8 bits of exponent and 8 of mantissa of a positive float, so two bytes hold exactly what the index holds, and a
dot product over truncated weights predicts the engine's score. Ids take two bytes, or four in a vector with an id above
65,535; such a packed vector begins with `~`, which is no character of base64.

Dense: a document has one vector of length 1 per window, stored as int8 codes with a scale: 388 bytes at a width of 384.
All windows are one binary doc value, because Lucene sorts several values of a document and drops equal ones
(docs/decisions/0141, with the cost of rounding).
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

from services.encoders.manifest import MAX_VOCABULARY
from services.errors import InvalidInput

IdArray = npt.NDArray[np.int32]
WeightArray = npt.NDArray[np.float32]

DenseArray = npt.NDArray[np.float32]

_DROPPED_BITS = 15
_WIDE_MARK = "~"
_BITS, _FLOAT = struct.Struct("=I"), struct.Struct("=f")
# FeatureField refuses a document with a weight below the smallest normal float32.
SMALLEST_WEIGHT = float(np.finfo(np.float32).tiny)
_MAX_CODE = 127
# Stored windows of one document: 50 KB at a width of 384. A search reads them for each reranked document.
MAX_STORED_WINDOWS = 128


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """A sparse vector: `ids` int32 [n], ascending and distinct, in [0, MAX_VOCABULARY); `weights` float32 [n], positive
    and truncated.
    """

    ids: IdArray
    weights: WeightArray

    @classmethod
    def of(cls, ids: npt.ArrayLike, weights: npt.ArrayLike) -> Self:
        """Sort by id, truncate, and drop weights too small to store.

        Raises InvalidInput (`bad_vector`) for NaN, infinite or negative weights, and for ids out of range or repeated.
        """
        i = np.ascontiguousarray(ids, dtype=np.int64)
        w = np.ascontiguousarray(weights, dtype=np.float32)
        if i.shape != w.shape or i.ndim != 1:
            raise InvalidInput("bad_vector", f"A vector needs as many ids as weights; got {i.shape} and {w.shape}.")
        if not np.isfinite(w).all() or (w < 0).any():
            raise InvalidInput("bad_vector", "A vector's weights must be finite and not negative.")
        if i.size and (i.min() < 0 or i.max() >= MAX_VOCABULARY):
            raise InvalidInput("bad_vector", f"A vector's ids must lie between 0 and {MAX_VOCABULARY - 1:,}.")
        storable = w >= SMALLEST_WEIGHT
        i, w = i[storable], w[storable]
        order = np.argsort(i, kind="stable")
        i = i[order]
        if (np.diff(i) == 0).any():
            raise InvalidInput("bad_vector", "A vector must not repeat an id.")
        return cls(i.astype(np.int32), truncate_weights(w[order]))

    def __len__(self) -> int:
        return int(self.ids.size)

    def features(self) -> dict[str, float]:
        """Return the value of a rank_features field: vocabulary id (a name without dots) to weight."""
        return dict(zip(map(str, self.ids.tolist()), self.weights.tolist(), strict=True))

    def top(self, count: int) -> "SparseVector":
        """Return the `count` heaviest pieces; at equal weight the lower id stays."""
        if len(self) <= count:
            return self
        kept = np.sort(np.lexsort((self.ids, -self.weights))[:count])
        return SparseVector(self.ids[kept], self.weights[kept])

    def pack(self) -> str:
        """Return base64 of the ids (little endian) and the 16 stored bits of the weights: 4 or 6 bytes a piece."""
        bits = (self.weights.view(np.uint32) >> _DROPPED_BITS).astype("<u2")
        wide = bool(self.ids.size) and int(self.ids[-1]) > 0xFFFF
        ids = self.ids.astype("<u4" if wide else "<u2")
        return _WIDE_MARK * wide + base64.b64encode(ids.tobytes() + bits.tobytes()).decode("ascii")

    @classmethod
    def unpack(cls, text: str) -> Self:
        """Invert `pack`. Raises InvalidInput (`bad_vector`) for text that `pack` cannot have written."""
        ids, bits = _split_packed(text)
        weights = (np.frombuffer(bits, "<u2").astype(np.uint32) << _DROPPED_BITS).view(np.float32)
        return cls(np.frombuffer(ids, "<u4" if text.startswith(_WIDE_MARK) else "<u2").astype(np.int32), weights)

    def dot(self, query: Mapping[int, float]) -> float:
        """Return the score of the document for query weights by id, in double precision."""
        score = 0.0
        for i, weight in zip(self.ids.tolist(), self.weights.tolist(), strict=True):
            score += query.get(i, 0.0) * weight
        return score


EMPTY_VECTOR = SparseVector(np.empty(0, np.int32), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class PackedVector:
    """A packed vector for one dot product, without unpacking it.

    A search looks up a few query pieces in each window of its hits, which is three times as fast as unpacking.
    """

    text: str

    def dot(self, query: Mapping[int, float]) -> float:
        """Return `SparseVector.dot`, to the last bit.

        Raises InvalidInput (`bad_vector`) for text that `pack` cannot have written.
        """
        id_bytes, weight_bytes = _split_packed(self.text)
        ids, bits = array("I" if self.text.startswith(_WIDE_MARK) else "H", id_bytes), array("H", weight_bytes)
        if sys.byteorder == "big":
            ids.byteswap()
            bits.byteswap()
        score = 0.0
        # The order of ids makes the floating-point sum equal to that of the unpacked vector.
        for piece in sorted(query):
            at = bisect_left(ids, piece)
            if at < len(ids) and ids[at] == piece:
                score += query[piece] * _FLOAT.unpack(_BITS.pack(bits[at] << _DROPPED_BITS))[0]
        return score


def _split_packed(text: str) -> tuple[bytes, bytes]:
    """Return the bytes of the ids and of the weights. Raises InvalidInput (`bad_vector`)."""
    wide = text.startswith(_WIDE_MARK)
    size = 6 if wide else 4
    try:
        data = base64.b64decode(text[1:] if wide else text, validate=True)
    except ValueError:
        data = b" "
    if len(data) % size:
        raise InvalidInput("bad_vector", f"A packed vector must be base64 of {size} bytes a piece.")
    end = len(data) // size * (size - 2)
    return data[:end], data[end:]


def truncate_weights(weights: npt.ArrayLike) -> WeightArray:
    """Return weights as FeatureField stores them: float32 with the low 15 bits cleared, at most 0.39 % lower."""
    bits = np.ascontiguousarray(weights, dtype=np.float32).view(np.uint32)
    return ((bits >> _DROPPED_BITS) << _DROPPED_BITS).view(np.float32)


def merge_max(vectors: Iterable[SparseVector]) -> SparseVector:
    """Return a document's vector: the largest weight of each piece over all windows (max pooling)."""
    windows = list(vectors)
    if len(windows) == 1:
        return windows[0]
    if not windows:
        return EMPTY_VECTOR
    ids = np.concatenate([window.ids for window in windows])
    weights = np.concatenate([window.weights for window in windows])
    order = np.lexsort((-weights, ids))
    ids, weights = ids[order], weights[order]
    first = np.ones(ids.size, dtype=bool)
    first[1:] = ids[1:] != ids[:-1]
    return SparseVector(ids[first], weights[first])


@dataclass(frozen=True, slots=True, eq=False)
class StoredDenseVectors:
    """The windows of several documents: rows `starts[i]` to `starts[i + 1]` belong to document `ids[i]`."""

    ids: list[str]
    starts: npt.NDArray[np.int64]
    rows: DenseArray

    @classmethod
    def read(cls, texts: Mapping[str, str], width: int) -> "StoredDenseVectors":
        """Unpack stored vectors by document; OpenSearch returns them without base64 padding.

        Documents without a vector are left out. Raises InvalidInput (`bad_vector`) for data of another form.
        """
        packed: dict[str, bytes] = {}
        row = window_row_dtype(width).itemsize
        for name, text in texts.items():
            try:
                data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            except ValueError:
                data = b"?"
            if len(data) % row:
                raise InvalidInput("bad_vector", f"A stored dense vector must have {row:,} bytes per window.")
            if data:
                packed[name] = data
        stored = np.frombuffer(b"".join(packed.values()), dtype=window_row_dtype(width))
        lengths = np.array([len(data) // row for data in packed.values()], dtype=np.int64)
        rows = stored["codes"].astype(np.float32) * stored["scale"][:, None]
        return cls(list(packed), np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), rows)

    def scores(self, query: DenseArray) -> dict[str, float]:
        """Return the dot product of each document's best window with the query [width]."""
        if not self.ids:
            return {}
        best = np.maximum.reduceat(self.rows @ query, self.starts[:-1])
        return dict(zip(self.ids, best.tolist(), strict=True))

    def best_windows(self, query: DenseArray, ids: Sequence[str]) -> DenseArray:
        """Return [documents, width]: the best window of each of these documents that has vectors."""
        place = {name: position for position, name in enumerate(self.ids)}
        positions = [place[name] for name in ids if name in place]
        similar = self.rows @ query
        rows = [int(self.starts[at] + similar[self.starts[at] : self.starts[at + 1]].argmax()) for at in positions]
        return self.rows[rows]


def window_row_dtype(width: int) -> np.dtype[np.void]:
    """Return the numpy type of a stored window."""
    return np.dtype([("scale", "<f4"), ("codes", "i1", (width,))])


def pack_dense_vectors(vectors: npt.ArrayLike) -> str:
    """Return vectors [windows, width] in base64. Raises InvalidInput (`bad_vector`) unless they are finite rows."""
    matrix = np.asarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or not matrix.shape[1] or not np.isfinite(matrix).all():
        raise InvalidInput("bad_vector", "Dense vectors must be rows of finite numbers.")
    return base64.b64encode(quantise_rows(matrix).tobytes()).decode("ascii")


def quantise_rows(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.void]:
    """Return finite rows [n, width] as int8 codes with a scale each: [n] of `window_row_dtype`."""
    scale = np.abs(matrix).max(axis=1, initial=0.0) / _MAX_CODE
    rows = np.empty(len(matrix), dtype=window_row_dtype(matrix.shape[1]))
    rows["scale"] = scale
    rows["codes"] = np.rint(matrix / np.where(scale > 0, scale, 1.0)[:, None])
    return rows


def merge_neighbouring_windows(
    vectors: npt.NDArray[np.floating], max_windows: int = MAX_STORED_WINDOWS
) -> npt.NDArray[np.floating]:
    """Reduce [windows, width] to at most `max_windows` rows by averaging neighbouring windows.

    Every window contributes; which of the neighbours matched is lost.
    """
    if len(vectors) <= max_windows:
        return vectors
    groups = np.array_split(np.asarray(vectors, dtype=np.float32), max_windows)
    return np.array([normalise_vector(group.mean(axis=0)) for group in groups], dtype=np.float32)


def normalise_vector(vector: DenseArray) -> DenseArray:
    """Return the vector [width] at length 1; a zero vector stays as it is."""
    length = float(np.linalg.norm(vector))
    return vector if length < 1e-12 else np.asarray(vector / length, dtype=np.float32)


def apply_dense_feedback(query: DenseArray, documents: DenseArray, weight: float) -> DenseArray:
    """Apply Rocchio feedback: move the query [width] towards the mean of relevant documents [n, width], at length 1.

    (1 - weight) x query + weight x mean. ANCE-PRF (arXiv 2108.13454) learns this step and uses the average as its
    baseline. Without documents the query stays as it is.
    """
    if not len(documents):
        return query
    return normalise_vector((1 - weight) * query + weight * documents.mean(axis=0))
