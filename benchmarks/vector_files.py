"""Sparse vectors in a file, for what is encoded once and measured often."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from services.vectors import SparseVector


def save_vectors(path: Path, vectors: Sequence[SparseVector]) -> None:
    """Writes at least one vector; a run that is killed leaves no half of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part.npz")
    np.savez(
        scratch,
        lengths=np.array([len(vector) for vector in vectors], dtype=np.int64),
        ids=np.concatenate([vector.ids for vector in vectors]),
        weights=np.concatenate([vector.weights for vector in vectors]),
    )
    scratch.replace(path)


def load_vectors(path: Path) -> list[SparseVector]:
    """The vectors in the order in which they were saved."""
    with np.load(path, allow_pickle=False) as file:
        ends = np.cumsum(file["lengths"])[:-1]
        ids, weights = np.split(file["ids"], ends), np.split(file["weights"], ends)
    return [SparseVector(i, w) for i, w in zip(ids, weights, strict=True)]
