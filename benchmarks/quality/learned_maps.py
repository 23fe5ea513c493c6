"""Linear maps of feedback: from a query's dense vector and those of its best windows to a better query vector.

ANCE-PRF (arXiv 2108.13454) trains a transformer that reads the query and the best documents. This is its idea at our
size: the new vector is the query's plus M x, at length 1, where x holds the query's vector and the windows' mean, or
the three windows one after the other. M is fitted by ridge regression in closed form on the examples of several
collections, which weigh alike. The ridge is that whose map, fitted without each collection, points best to its targets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

from benchmarks.quality.memory_collection import MemoryCollection
from models.projection.encoder import ProjectedEncoder
from models.training.pairs import texts_fingerprint
from services.encoders.vectors import DenseArray, normalise_vector

MAP_DOCUMENTS: Final = 3
RIDGES: Final = (0.1, 1.0, 10.0)
Target = Literal["relevant", "encoder"]
TARGETS: Final[tuple[Target, ...]] = ("relevant", "encoder")
FloatMatrix = NDArray[np.float64]


class MapForm(StrEnum):
    """Input of a map beside the query: the mean of the windows, or each of them."""

    mean = "mean"
    each = "each"


def read_input(query: DenseArray, windows: DenseArray, form: MapForm) -> DenseArray:
    """Return the input of a map. Missing windows count as the query itself."""
    missing = MAP_DOCUMENTS - len(windows)
    rows = np.concatenate([windows, np.repeat(query[None, :], missing, axis=0)]) if missing else windows
    return np.concatenate([query, rows.mean(axis=0) if form is MapForm.mean else rows.ravel()])


@dataclass(frozen=True, slots=True, eq=False)
class MapExamples:
    """Queries with their vectors, windows and targets. Queries whose relevant documents have no vector have no row."""

    names: list[str]
    queries: DenseArray
    windows: list[DenseArray]
    targets: Mapping[Target, DenseArray]

    @classmethod
    def of(cls, own: MemoryCollection, encoder: ProjectedEncoder, cache: Path) -> Self:
        """Read the examples of a collection. The target `relevant` is the mean of relevant documents' best windows.

        A file in `cache` keeps the vectors of the encoder.
        """
        names, relevant = [], []
        for query, grades in own.judgements.items():
            rows = own.stored.best_windows(own.vectors[query], [name for name, grade in grades.items() if grade > 0])
            if len(rows):
                names.append(query)
                relevant.append(normalise_vector(rows.mean(axis=0)))
        texts = [own.queries[name] for name in names]
        path = cache / f"queries-{encoder.fingerprint}-{texts_fingerprint(texts)}.npy"
        if not path.is_file():
            np.save(path, encoder.encode_queries(texts))
        return cls(
            names,
            np.array([own.vectors[name] for name in names]),
            [own.best_windows(name, MAP_DOCUMENTS) for name in names],
            {"relevant": np.array(relevant), "encoder": np.load(path)},
        )

    def split(self) -> dict[str, "MapExamples"]:
        """Return the examples by the set that a query's name begins with."""
        sets: dict[str, list[int]] = {}
        for row, name in enumerate(self.names):
            sets.setdefault(name.rpartition("-")[0], []).append(row)
        return {
            name: MapExamples(
                [self.names[row] for row in rows],
                self.queries[rows],
                [self.windows[row] for row in rows],
                {target: vectors[rows] for target, vectors in self.targets.items()},
            )
            for name, rows in sets.items()
        }

    def inputs(self, form: MapForm) -> FloatMatrix:
        """Return the inputs of a map [queries, input]."""
        pairs = zip(self.queries, self.windows, strict=True)
        return np.array([read_input(query, windows, form) for query, windows in pairs], dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class FeedbackMap:
    """A fitted map [input, width]."""

    form: MapForm
    ridge: float
    matrix: FloatMatrix

    def apply(self, query: DenseArray, windows: DenseArray) -> DenseArray:
        """Return the moved vector, at length 1."""
        return normalise_vector((query + read_input(query, windows, self.form) @ self.matrix).astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """Means over the examples of one collection: x x', and x times what the query lacks of the target."""

    inputs: FloatMatrix
    lacking: FloatMatrix
    squares: FloatMatrix
    products: FloatMatrix

    @classmethod
    def of(cls, examples: MapExamples, target: Target, form: MapForm) -> Self:
        inputs = examples.inputs(form)
        lacking = examples.targets[target].astype(np.float64) - examples.queries
        return cls(inputs, lacking, inputs.T @ inputs / len(inputs), inputs.T @ lacking / len(inputs))


def _solve(parts: Sequence[_Moments], ridge: float) -> FloatMatrix:
    squares = np.mean([part.squares for part in parts], axis=0)
    products = np.mean([part.products for part in parts], axis=0)
    size = len(squares)
    # The inputs have a mean square of about 1 in all, so the ridge is relative to a direction's share of it.
    return np.asarray(solve(squares + ridge / size * np.eye(size), products, assume_a="pos"))


def fit_map(collections: Sequence[MapExamples], target: Target, form: MapForm) -> FeedbackMap:
    """Fit a map. The ridge is chosen by the mean cosine of targets on collections that the map was fitted without."""
    parts = [_Moments.of(examples, target, form) for examples in collections]

    def quality(ridge: float) -> float:
        cosines = []
        for at, (part, examples) in enumerate(zip(parts, collections, strict=True)):
            matrix = _solve(parts[:at] + parts[at + 1 :], ridge)
            moved = examples.queries + part.inputs @ matrix
            aims = examples.targets[target]
            lengths = np.linalg.norm(moved, axis=1) * np.linalg.norm(aims, axis=1)
            cosines.append(float(((moved * aims).sum(axis=1) / np.maximum(lengths, 1e-12)).mean()))
        return sum(cosines) / len(cosines)

    ridge = max(RIDGES, key=quality) if len(parts) > 1 else RIDGES[1]
    return FeedbackMap(form, ridge, _solve(parts, ridge))
