"""Teachers' vectors of queries and passages, whose dot product is the teacher's score.

The scores of any batch, all queries against all passages, are one product, which is faster than reading scored pairs
from a file; and a passage of many queries is encoded once (docs/decisions/0110).

`Teacher` is the interface of teachers. `load_teacher_vectors` encodes the texts of a pair set once and keeps the
vectors in a directory, dense as float16 or sparse as `SparseRows`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.training.pairs import PairSet, texts_fingerprint
from models.training.storage import NamedArrays, load_or_make_rows
from services.encoders.vectors import SparseVector
from services.errors import InvalidInput

BLOCK_TEXTS = 4096  # texts between two saves: a small dense teacher takes a few minutes on a core
# Scores of a block of passages: 4 bytes each, so 64 MB a teacher.
BLOCK_SCORES = 16 * 1024**2
Scores = NDArray[np.float32]
HalfMatrix = NDArray[np.float16]


@dataclass(frozen=True, slots=True, eq=False)
class SparseRows:
    """Sparse vectors: row i has `ids[indptr[i]:indptr[i + 1]]`, ascending and distinct, and their weights.

    `indptr` int64 [n + 1], `ids` int32, `weights` float32.
    """

    indptr: NDArray[np.int64]
    ids: NDArray[np.int32]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, lengths: NDArray[np.integer], ids: NDArray[np.int32], weights: NDArray[np.float32]) -> SparseRows:
        indptr = np.zeros(lengths.size + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:])
        return cls(indptr, ids, weights)

    @classmethod
    def of_vectors(cls, vectors: Sequence[SparseVector]) -> SparseRows:
        return cls.of(
            np.array([len(vector) for vector in vectors], dtype=np.int64),
            np.concatenate([np.empty(0, np.int32), *(vector.ids for vector in vectors)]).astype(np.int32),
            np.concatenate([np.empty(0, np.float32), *(vector.weights for vector in vectors)]).astype(np.float32),
        )

    def __len__(self) -> int:
        return int(self.indptr.size - 1)

    def take(self, rows: NDArray[np.integer]) -> SparseRows:
        """Return these rows, in this order."""
        starts = self.indptr[rows]
        lengths = self.indptr[np.asarray(rows) + 1] - starts
        taken = SparseRows.of(lengths, np.empty(0, np.int32), np.empty(0, np.float32))
        positions = np.repeat(starts - taken.indptr[:-1], lengths) + np.arange(taken.indptr[-1])
        return SparseRows(taken.indptr, self.ids[positions], self.weights[positions])


EncodedTexts = HalfMatrix | SparseRows


class Teacher(Protocol):
    """Encoder of queries and passages whose dot product scores them.

    `name` is for people and file names ([a-z0-9.-]); `fingerprint` must change whenever a vector could. Both methods
    keep the order of the texts, take any text (also an empty one), and give the same vectors in any batch.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def encode_queries(self, texts: Sequence[str]) -> EncodedTexts: ...

    def encode_passages(self, texts: Sequence[str]) -> EncodedTexts: ...


def teacher_name(name_or_path: str) -> str:
    """Return the name of a teacher for people and file names: that of its directory, or the last part of a hub's."""
    return re.sub(r"[^a-z0-9.-]+", "-", Path(name_or_path).name.lower())


class TeacherVectors(Protocol):
    """Scores of a teacher for the queries and passages of a set."""

    @property
    def name(self) -> str: ...

    @property
    def passages_count(self) -> int: ...

    def scores(self, query_rows: NDArray[np.integer], passage_rows: NDArray[np.integer]) -> Scores:
        """Return float32 [B, M] for rows [B] and [M] of the set; passage row -1 (no passage) has an arbitrary score."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class DenseTeacherVectors:
    """Dense vectors: `queries` [n, d] and `passages` [m, d], float16, possibly memory-mapped; products are float32."""

    name: str
    queries: HalfMatrix
    passages: HalfMatrix

    @property
    def passages_count(self) -> int:
        return int(self.passages.shape[0])

    def scores(self, query_rows: NDArray[np.integer], passage_rows: NDArray[np.integer]) -> Scores:
        queries, passages = self.queries[query_rows], self.passages[passage_rows]
        scores: Scores = queries.astype(np.float32) @ passages.astype(np.float32).T
        return scores


@dataclass(frozen=True, slots=True, eq=False)
class SparseTeacherVectors:
    """Sparse vectors over one vocabulary."""

    name: str
    queries: SparseRows
    passages: SparseRows

    @property
    def passages_count(self) -> int:
        return len(self.passages)

    def scores(self, query_rows: NDArray[np.integer], passage_rows: NDArray[np.integer]) -> Scores:
        """Multiply dense columns of the pieces that the batch's queries have; no other piece can score."""
        queries = self.queries.take(np.asarray(query_rows))
        passages = self.passages.take(np.asarray(passage_rows) % max(1, len(self.passages)))
        pieces = np.unique(queries.ids)
        return _dense_columns(queries, pieces) @ _dense_columns(passages, pieces).T


def _dense_columns(rows: SparseRows, pieces: NDArray[np.int32]) -> Scores:
    """Return float32 [rows, pieces]: the weights of these pieces (ascending)."""
    dense = np.zeros((len(rows), pieces.size), dtype=np.float32)
    if pieces.size:
        columns = np.minimum(np.searchsorted(pieces, rows.ids), pieces.size - 1)
        known = pieces[columns] == rows.ids
        owners = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
        dense[owners[known], columns[known]] = rows.weights[known]
    return dense


def load_teacher_vectors(
    teacher: Teacher,
    pairs: PairSet,
    directory: Path,
    done: Callable[[str, int, int], object] = lambda side, rows, total: None,
    *,
    block: int = BLOCK_TEXTS,
) -> TeacherVectors:
    """Return the teacher's vectors of every query and passage; encode and keep them if `directory` lacks them.

    Each side has a folder, named by the teacher and a fingerprint of the teacher and the texts: a resumed run finds its
    vectors, another corpus or teacher does not. Blocks are saved as they finish. `done` receives the side, its finished
    rows and their total.

    Raises InvalidInput (`not_finite_scores`, `bad_teacher`), ConfigurationError (`unwritable_directory`), and the
    errors of the teacher.
    """
    queries = load_vectors_of(teacher, "queries", pairs.queries, teacher.encode_queries, directory, done, block)
    passages = load_vectors_of(teacher, "passages", pairs.passages, teacher.encode_passages, directory, done, block)
    if isinstance(queries, SparseRows) and isinstance(passages, SparseRows):
        return SparseTeacherVectors(teacher.name, queries, passages)
    if isinstance(queries, SparseRows) or isinstance(passages, SparseRows) or queries.shape[1] != passages.shape[1]:
        raise InvalidInput(
            "bad_teacher", f"The teacher {teacher.name} gives different kinds of vectors for queries and passages."
        )
    return DenseTeacherVectors(teacher.name, queries, passages)


def load_vectors_of(
    teacher: Teacher,
    side: str,
    texts: Sequence[str],
    encode: Callable[[Sequence[str]], EncodedTexts],
    directory: Path,
    done: Callable[[str, int, int], object] = lambda side, rows, total: None,
    block: int = BLOCK_TEXTS,
) -> EncodedTexts:
    """Return the vectors of the texts of a side; encode and keep them if `directory` lacks them."""
    fingerprint = texts_fingerprint([teacher.fingerprint, side, texts_fingerprint(texts)])
    arrays = load_or_make_rows(
        directory / f"{teacher.name}-{side}-{fingerprint}",
        len(texts),
        block,
        lambda start, end: _make_arrays(teacher, side, encode(texts[start:end]), end - start),
        about={"teacher": teacher.name, "teacher_fingerprint": teacher.fingerprint, "side": side},
        done=lambda rows: done(side, rows, len(texts)),
    )
    if "vectors" in arrays:
        return arrays["vectors"]
    return SparseRows.of(arrays["lengths"], arrays["ids"], arrays["weights"])


def _make_arrays(teacher: Teacher, side: str, encoded: EncodedTexts, rows: int) -> NamedArrays:
    output = f"The output of the teacher {teacher.name} for {side}"
    if isinstance(encoded, SparseRows):
        arrays: NamedArrays = {"lengths": np.diff(encoded.indptr), "ids": encoded.ids, "weights": encoded.weights}
        finite = np.isfinite(encoded.weights)
    else:
        arrays = {"vectors": encoded}
        finite = np.isfinite(encoded)
    if len(encoded) != rows:
        raise InvalidInput("bad_teacher", f"{output} has {len(encoded)} rows for {rows} texts.")
    if not finite.all():
        raise InvalidInput("not_finite_scores", f"{output} has NaN or infinity: check the teacher's weights.")
    return arrays
