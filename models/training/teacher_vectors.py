"""What teachers say about queries and passages, in a form whose dot product is their score.

So the full matrix of scores of any batch, queries against passages, is a product that costs less than reading it from
a file of scored pairs would, and a passage that serves many queries is encoded once.
"""

from __future__ import annotations

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

Scores = NDArray[np.float32]
HalfMatrix = NDArray[np.float16]
BLOCK_TEXTS = 4096  # texts between two saves: a few minutes of a small dense teacher on a core


@dataclass(frozen=True, slots=True, eq=False)
class SparseRows:
    """Vectors over a vocabulary: row i has `ids[indptr[i]:indptr[i + 1]]`, ascending and distinct, and their weights.

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
        """These rows, in this order."""
        starts = self.indptr[rows]
        lengths = self.indptr[np.asarray(rows) + 1] - starts
        taken = SparseRows.of(lengths, np.empty(0, np.int32), np.empty(0, np.float32))
        places = np.repeat(starts - taken.indptr[:-1], lengths) + np.arange(taken.indptr[-1])
        return SparseRows(taken.indptr, self.ids[places], self.weights[places])


EncodedTexts = HalfMatrix | SparseRows


class Teacher(Protocol):
    """Something that scores passages for queries through vectors of both.

    `name` serves people and file names ([a-z0-9.-]); `fingerprint` changes whenever a vector could. Both calls keep
    the order of the texts, take any text (an empty one too), and are independent of how texts are batched.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def encode_queries(self, texts: Sequence[str]) -> EncodedTexts: ...

    def encode_passages(self, texts: Sequence[str]) -> EncodedTexts: ...


class TeacherVectors(Protocol):
    """A teacher's opinion about the queries and passages of a set."""

    @property
    def name(self) -> str: ...

    @property
    def passages_count(self) -> int: ...

    def scores(self, query_rows: NDArray[np.integer], passage_rows: NDArray[np.integer]) -> Scores:
        """Float32 [B, M] for rows [B] and [M] of the set; a passage row of -1 (none) scores as some other does."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class DenseTeacherVectors:
    """`queries` [n, d] and `passages` [m, d], float16, may be memory-mapped; products are float32."""

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
    """Rows over one vocabulary on both sides."""

    name: str
    queries: SparseRows
    passages: SparseRows

    @property
    def passages_count(self) -> int:
        return len(self.passages)

    def scores(self, query_rows: NDArray[np.integer], passage_rows: NDArray[np.integer]) -> Scores:
        """Only the pieces of the batch's queries become columns of the product."""
        queries = self.queries.take(np.asarray(query_rows))
        passages = self.passages.take(np.asarray(passage_rows) % max(1, len(self.passages)))
        pieces = np.unique(queries.ids)
        return _dense_columns(queries, pieces) @ _dense_columns(passages, pieces).T


def _dense_columns(rows: SparseRows, pieces: NDArray[np.int32]) -> Scores:
    """Float32 [rows, pieces]: the weights of these pieces (ascending), others left out."""
    found = np.zeros((len(rows), pieces.size), dtype=np.float32)
    if pieces.size:
        columns = np.minimum(np.searchsorted(pieces, rows.ids), pieces.size - 1)
        known = pieces[columns] == rows.ids
        owners = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
        found[owners[known], columns[known]] = rows.weights[known]
    return found


def load_teacher_vectors(
    teacher: Teacher,
    pairs: PairSet,
    directory: Path,
    done: Callable[[str, int, int], object] = lambda side, rows, total: None,
    *,
    block: int = BLOCK_TEXTS,
) -> TeacherVectors:
    """The teacher's vectors of every query and passage, from `directory` where they are there, else made and kept.

    One folder a side, named after the teacher and a fingerprint of it and the texts: a resumed run finds its vectors,
    another corpus or teacher does not. Blocks are saved as they are made. `done` hears the side, its rows so far, and
    how many there will be.

    Raises InvalidInput (`not_finite_scores`, `bad_teacher`), ConfigurationError (`unwritable_directory`), and what the
    teacher raises.
    """
    queries = _encode_side(teacher, "queries", pairs.queries, teacher.encode_queries, directory, done, block)
    passages = _encode_side(teacher, "passages", pairs.passages, teacher.encode_passages, directory, done, block)
    if isinstance(queries, SparseRows) and isinstance(passages, SparseRows):
        return SparseTeacherVectors(teacher.name, queries, passages)
    if isinstance(queries, SparseRows) or isinstance(passages, SparseRows) or queries.shape[1] != passages.shape[1]:
        raise InvalidInput("bad_teacher", f"The teacher {teacher.name} gives queries and passages of different kinds.")
    return DenseTeacherVectors(teacher.name, queries, passages)


def _encode_side(
    teacher: Teacher,
    side: str,
    texts: Sequence[str],
    encode: Callable[[Sequence[str]], EncodedTexts],
    directory: Path,
    done: Callable[[str, int, int], object],
    block: int,
) -> EncodedTexts:
    prints = texts_fingerprint([teacher.fingerprint, side, texts_fingerprint(texts)])
    arrays = load_or_make_rows(
        directory / f"{teacher.name}-{side}-{prints}",
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
    what = f"What the teacher {teacher.name} makes of {side}"
    if isinstance(encoded, SparseRows):
        found: NamedArrays = {"lengths": np.diff(encoded.indptr), "ids": encoded.ids, "weights": encoded.weights}
        finite = np.isfinite(encoded.weights)
    else:
        found = {"vectors": encoded}
        finite = np.isfinite(encoded)
    if len(encoded) != rows:
        raise InvalidInput("bad_teacher", f"{what} has {len(encoded)} rows for {rows} texts.")
    if not finite.all():
        raise InvalidInput("not_finite_scores", f"{what} has NaN or infinity: its weights are at fault.")
    return found
