"""Blocks as points: near one another where they say the same, by the pieces that tell the blocks of a talk apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.vectors import SparseVector

Points = npt.NDArray[np.float32]

# Chosen on the tuning half of both sets (docs/decisions/0194-chapters-by-tiling.md).
DIMENSIONS = 12
SMOOTHING = 0.7  # standard deviation in blocks
COMMON = 0.5  # a piece in more of the blocks tells none from another
# The pieces that vary most: three hours of talk have about as many, and a matrix of 3,000 blocks takes 49 MB.
MOST_PIECES = 4096
AROUND = 12  # blocks on each side that are held against one another, near 500 words
_REACH = 3
_ROUNDS = 12
# What another choice would make other chapters of.
CHOSEN = (DIMENSIONS, SMOOTHING, COMMON, MOST_PIECES, AROUND, _REACH, _ROUNDS)
_TINY = 1e-9


def points(vectors: Sequence[SparseVector]) -> Points:
    """One unit vector a block, of few dimensions: the main components of their weighted, smoothed pieces."""
    matrix = weighted(vectors)
    if not matrix.shape[1]:
        return np.zeros((len(vectors), 1), np.float32)
    _smooth(matrix)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), _TINY)
    matrix -= matrix.mean(axis=0)
    found = _components(matrix)
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), _TINY)
    return found


def alike(found: Points) -> npt.NDArray[np.float64]:
    """For each block how like the blocks before it are to it and those that follow: a cosine, -1 to 1; the first has 1.

    A run is held together by its middle, a turn is seen from near: each finds what the other misses.
    """
    count = len(found)
    sums = np.vstack([np.zeros((1, found.shape[1])), np.cumsum(found, axis=0, dtype=np.float64)])
    at = np.arange(count)
    before, after = sums[at] - sums[np.maximum(at - AROUND, 0)], sums[np.minimum(at + AROUND, count)] - sums[at]
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosines: npt.NDArray[np.float64] = (before * after).sum(axis=1) / np.maximum(norms, _TINY)
    cosines[:1] = 1.0
    return cosines


def weighted(vectors: Sequence[SparseVector]) -> npt.NDArray[np.float32]:
    """Blocks by pieces: log(1 + weight) times the rarity of the piece among the blocks of this talk."""
    counts = np.array([len(vector) for vector in vectors])
    rows = np.repeat(np.arange(len(vectors)), counts)
    ids = np.concatenate([vector.ids for vector in vectors]) if len(vectors) else np.empty(0, np.int32)
    pieces, columns = np.unique(ids, return_inverse=True)
    blocks_with = np.bincount(columns, minlength=len(pieces))
    telling = (blocks_with >= 2) & (blocks_with <= max(COMMON * len(vectors), 2))
    rarity = np.log(len(vectors) / np.maximum(blocks_with, 1)).astype(np.float32) * telling
    values = np.log1p(np.concatenate([vector.weights for vector in vectors])) if len(vectors) else np.empty(0)
    values = values * rarity[columns]
    mass = np.bincount(columns, weights=values**2, minlength=len(pieces))
    kept = np.sort(np.argsort(-mass, kind="stable")[:MOST_PIECES])
    kept = kept[mass[kept] > 0]
    place = np.full(len(pieces), -1)
    place[kept] = np.arange(len(kept))
    here = place[columns] >= 0
    matrix = np.zeros((len(vectors), len(kept)), np.float32)
    matrix[rows[here], place[columns[here]]] = values[here]
    return matrix


def _smooth(matrix: npt.NDArray[np.float32]) -> None:
    """In place and some columns at a time, so that it takes little memory beside the matrix."""
    kernel = np.exp(-0.5 * (np.arange(-_REACH, _REACH + 1) / SMOOTHING) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    height = len(matrix)
    for first in range(0, matrix.shape[1], 256):
        padded = np.pad(matrix[:, first : first + 256], ((_REACH, _REACH), (0, 0)), mode="edge")
        matrix[:, first : first + 256] = sum(kernel[i] * padded[i : i + height] for i in range(2 * _REACH + 1))


def _components(matrix: npt.NDArray[np.float32]) -> Points:
    """The rows by their main components, by subspace iteration: a whole decomposition of 10 hours takes minutes."""
    wanted = min(DIMENSIONS, *matrix.shape)
    width = min(2 * DIMENSIONS, *matrix.shape)
    basis = np.random.default_rng(0).standard_normal((matrix.shape[1], width)).astype(np.float32)
    for _ in range(_ROUNDS):
        basis, _ = np.linalg.qr(matrix.T @ (matrix @ basis))
    left, scale, _ = np.linalg.svd(matrix @ basis, full_matrices=False)
    return np.ascontiguousarray(left[:, :wanted] * scale[:wanted], dtype=np.float32)
