"""Dense query table: one vector for each piece, whose sum stands for a dense encoder's vector of a query.

The vector of a query is the sum over its distinct pieces of sqrt(count) times the piece's row, scaled to length 1. The
table W [vocabulary, width] minimises |X W - Y|^2 + RIDGE |W - W0|^2 by conjugate gradients. A row of X holds the square
roots of a query's counts, scaled to length 1, a row of Y the encoder's vector of the query, a row of W0 its vector of a
single piece.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from models.dense import DenseModel
from models.export.checkpoint import FloatArray
from models.progress import ProgressReporter
from models.training.pairs import texts_fingerprint
from models.training.storage import load_or_make_rows

# The pieces of a query that count.
MAX_QUERY_PIECES = 128
# Twice and half of it changed no figure by more than .002 (docs/decisions/0242).
RIDGE = 1.0
ITERATIONS = 30
_BLOCK_TEXTS = 4096


def count_pieces(rows: Sequence[Sequence[int]], vocabulary: int) -> sp.csr_matrix:
    """Return the square roots of piece counts, scaled to length 1: float32 [rows, vocabulary]."""
    indices: list[int] = []
    values: list[float] = []
    ends = [0]
    for row in rows:
        counts = Counter(row[:MAX_QUERY_PIECES])
        length = sum(counts.values()) ** 0.5
        indices += counts
        values += [count**0.5 / length for count in counts.values()]
        ends.append(len(indices))
    return sp.csr_matrix((np.array(values, np.float32), indices, ends), shape=(len(rows), vocabulary))


def load_query_vectors(
    directory: Path, model: DenseModel, title: str, texts: Sequence[str], show: ProgressReporter
) -> FloatArray:
    """Return a dense encoder's vectors of queries: [texts, width].

    Files in `directory` keep them, by the encoder's fingerprint and the texts. `title` names the stage and the files.
    """
    key = texts_fingerprint([model.fingerprint, title, texts_fingerprint(texts)])
    arrays = load_or_make_rows(
        directory / f"{title.lower().replace(' ', '-')}-{key}",
        len(texts),
        _BLOCK_TEXTS,
        lambda start, end: {"vectors": model.encode_queries(texts[start:end])},
        about={"dense": model.name, "texts": title},
        done=lambda rows: show.step(title, rows, len(texts)),
    )
    return np.asarray(arrays["vectors"], dtype=np.float32)


def fit_query_table(
    counts: sp.csr_matrix,
    vectors: FloatArray,
    start: FloatArray,
    *,
    done: Callable[[int, int], object] = lambda iteration, iterations: None,
) -> FloatArray:
    """Return the table [vocabulary, width] that fits queries' `counts` [queries, vocabulary] to their `vectors`.

    `start` [vocabulary, width] holds the vectors of single pieces; a piece of no query keeps its own. Takes memory for
    six tables.
    """
    transposed = counts.T.tocsr()

    def apply(table: FloatArray) -> FloatArray:
        return np.asarray(transposed @ (counts @ table) + RIDGE * table, dtype=np.float32)

    table = np.array(start, dtype=np.float32)
    residual = np.asarray(transposed @ vectors, dtype=np.float32) + RIDGE * start - apply(table)
    direction = residual.copy()
    square = (residual**2).sum(axis=0)
    for iteration in range(ITERATIONS):
        image = apply(direction)
        step = square / np.maximum((direction * image).sum(axis=0), 1e-12)
        table += step * direction
        residual -= step * image
        after = (residual**2).sum(axis=0)
        direction = residual + after / np.maximum(square, 1e-12) * direction
        square = after
        done(iteration + 1, ITERATIONS)
    return table
