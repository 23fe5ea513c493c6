"""Dense vectors as they are stored beside a document, and what a search computes with them.

A document has one vector a window, each of length 1 and kept as whole numbers from -127 to 127 with a scale: 388 bytes
at a width of 384. All windows of a document are one binary doc value, because Lucene sorts several values of a
document and drops equal ones. What the rounding costs: docs/decisions/0141-dense-vectors-as-doc-values.md.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.errors import InvalidInput

Dense = npt.NDArray[np.float32]
_LARGEST = 127
# Windows that are stored of one document: 50 KB at a width of 384, and a search reads as many as it reranks.
MAX_WINDOWS = 128


def row_type(width: int) -> np.dtype[np.void]:
    """How a window is stored."""
    return np.dtype([("scale", "<f4"), ("codes", "i1", (width,))])


def pack(vectors: npt.ArrayLike) -> str:
    """Base64 of vectors [windows, width]. Raises InvalidInput (`bad_vector`) for what is not finite or no matrix."""
    given = np.asarray(vectors, dtype=np.float32)
    if given.ndim != 2 or not given.shape[1] or not np.isfinite(given).all():
        raise InvalidInput("bad_vector", "Dense vectors are rows of finite numbers.")
    scale = np.abs(given).max(axis=1, initial=0.0) / _LARGEST
    rows = np.empty(len(given), dtype=row_type(given.shape[1]))
    rows["scale"] = scale
    rows["codes"] = np.rint(given / np.where(scale > 0, scale, 1.0)[:, None])
    return base64.b64encode(rows.tobytes()).decode("ascii")


def gathered(vectors: npt.NDArray[np.floating], most: int = MAX_WINDOWS) -> npt.NDArray[np.floating]:
    """At most `most` rows of [windows, width]: neighbours of a very long document share a row, their mean.

    Every window plays a part; what is lost is which of the neighbours it was.
    """
    if len(vectors) <= most:
        return vectors
    groups = np.array_split(np.asarray(vectors, dtype=np.float32), most)
    return np.array([unit(group.mean(axis=0)) for group in groups], dtype=np.float32)


def unit(vector: Dense) -> Dense:
    """The vector [width] at length 1; one of zeros stays as it is."""
    length = float(np.linalg.norm(vector))
    return vector if length < 1e-12 else np.asarray(vector / length, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class StoredVectors:
    """The windows of several documents: rows `starts[i]` to `starts[i + 1]` are those of document `ids[i]`."""

    ids: list[str]
    starts: npt.NDArray[np.int64]
    rows: Dense

    @classmethod
    def read(cls, texts: Mapping[str, str], width: int) -> "StoredVectors":
        """From what `pack` made, by document; OpenSearch gives it without padding. Documents without a vector are
        left out. Raises InvalidInput (`bad_vector`) for anything else."""
        packed: dict[str, bytes] = {}
        row = row_type(width).itemsize
        for name, text in texts.items():
            try:
                data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            except ValueError:
                data = b"?"
            if len(data) % row:
                raise InvalidInput("bad_vector", f"A stored dense vector has {row:,} bytes a window.")
            if data:
                packed[name] = data
        stored = np.frombuffer(b"".join(packed.values()), dtype=row_type(width))
        lengths = np.array([len(data) // row for data in packed.values()], dtype=np.int64)
        rows = stored["codes"].astype(np.float32) * stored["scale"][:, None]
        return cls(list(packed), np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), rows)

    def scores(self, query: Dense) -> dict[str, float]:
        """The dot product of each document's best window with the query [width]."""
        if not self.ids:
            return {}
        best = np.maximum.reduceat(self.rows @ query, self.starts[:-1])
        return dict(zip(self.ids, best.tolist(), strict=True))

    def best_windows(self, query: Dense, ids: Sequence[str]) -> Dense:
        """[found, width]: the best window of each of these documents that has one."""
        place = {name: position for position, name in enumerate(self.ids)}
        found = [place[name] for name in ids if name in place]
        similar = self.rows @ query
        rows = [int(self.starts[at] + similar[self.starts[at] : self.starts[at + 1]].argmax()) for at in found]
        return self.rows[rows]


def moved(query: Dense, documents: Dense, weight: float) -> Dense:
    """Rocchio: the query [width] moved to the mean of documents [n, width] that are taken as relevant, length 1.

    (1 - weight) x query + weight x mean; ANCE-PRF (arXiv 2108.13454) learns this step, the average is its baseline.
    No documents leave the query as it is.
    """
    if not len(documents):
        return query
    return unit((1 - weight) * query + weight * documents.mean(axis=0))
