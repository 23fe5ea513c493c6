"""Inverse document frequency of pieces over a passage collection, and weight tables as files.

The form is that of the published tables (idf.json of arXiv 2411.04403): ln(1 + (N - df + .5) / (df + .5)), where df of
N passages have the piece. The published tables give unseen pieces 1.0, so that a quotation mark outweighs "the";
`inverse_document_frequency` gives them other values (docs/decisions/0101).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.encoder import PieceTokeniser
from services.encoders import query_table
from services.errors import ConfigurationError, InvalidInput

PieceWeights = NDArray[np.float32]
PieceCounts = NDArray[np.int64]
BATCH_PASSAGES = 1024


def passage_idf(pieces: PieceTokeniser, passages: Iterable[str], excluded: Collection[int] = ()) -> PieceWeights:
    """Compute the IDF of the pieces of `passages`, whole texts, float32 [vocabulary].

    The passages are read as a stream, 1,024 at a time. Raises the errors of `inverse_document_frequency`.
    """
    vocabulary = pieces.vocabulary()

    def rows() -> Iterable[list[int]]:
        texts = iter(passages)
        while batch := list(islice(texts, BATCH_PASSAGES)):
            yield from pieces.ids(batch)

    frequencies, count = document_frequencies(rows(), max(vocabulary.values(), default=-1) + 1)
    return inverse_document_frequency(frequencies, count, vocabulary, excluded)


def document_frequencies(rows: Iterable[Sequence[int]], vocabulary: int) -> tuple[PieceCounts, int]:
    """Count for each piece the rows that hold it, int64 [vocabulary]; return the counts and the number of rows.

    Raises InvalidInput (`wrong_tokeniser`) for an id outside the vocabulary.
    """
    frequencies = np.zeros(vocabulary, dtype=np.int64)
    passages = 0
    for row in rows:
        passages += 1
        distinct = np.unique(np.asarray(row, dtype=np.int64))
        if distinct.size and (distinct[0] < 0 or distinct[-1] >= vocabulary):
            raise InvalidInput(
                "wrong_tokeniser",
                f"Passage {passages - 1} has the piece {int(distinct[-1])} and the vocabulary ends at "
                f"{vocabulary - 1}: its pieces are those of another tokeniser.",
            )
        frequencies[distinct] += 1
    return frequencies, passages


def inverse_document_frequency(
    frequencies: PieceCounts, passages: int, pieces: Mapping[str, int], excluded: Collection[int] = ()
) -> PieceWeights:
    """Compute ln(1 + (N - df + .5) / (df + .5)) for each piece, float32 [vocabulary]; pieces in `excluded` get 0.

    An unseen piece with a letter or a digit counts as if one passage had it. Any other unseen piece (a quotation mark
    in a collection without them) gets the smallest value of a seen piece. The largest value would make the question
    mark the heaviest piece of every question.

    Raises InvalidInput (`empty_collection`) without passages, or when all pieces of the passages are excluded.
    """
    seen = frequencies > 0
    ignored = np.zeros(frequencies.size, dtype=bool)
    ignored[list(excluded)] = True
    if passages == 0 or not (seen & ~ignored).any():
        raise InvalidInput(
            "empty_collection", "There is no passage with a known piece: an IDF table needs a collection of texts."
        )
    counted = np.minimum(np.maximum(frequencies, 1), passages).astype(np.float64)
    idf = np.log1p((passages - counted + 0.5) / (counted + 0.5))
    smallest = idf[seen & ~ignored].min()
    for piece, index in pieces.items():
        if not seen[index] and not any(character.isalnum() for character in piece):
            idf[index] = smallest
    idf[ignored] = 0.0
    return idf.astype(np.float32)


def read_weights(path: Path, pieces: Mapping[str, int]) -> PieceWeights:
    """Read a table of piece to weight (query_weights.json, idf.json) as float32 [vocabulary]; absent pieces get 0.

    Raises ConfigurationError (`bad_query_table`) for a file of another form, for pieces that the tokeniser does not
    have, and for weights that are negative or not finite.
    """
    table = query_table.read_query_weights(path)
    unknown = [piece for piece in table if piece not in pieces]
    if unknown or not table:
        raise ConfigurationError(
            "bad_query_table",
            f"{path} belongs to another tokeniser: {len(unknown):,} of its {len(table):,} pieces are unknown to this "
            f"one{f', {unknown[0]!r} for example' if unknown else ''}.",
        )
    return align_weights(table, pieces)


def align_weights(table: Mapping[str, float], pieces: Mapping[str, int]) -> PieceWeights:
    """Return a table of known pieces as float32 [vocabulary]; absent pieces get 0."""
    weights = np.zeros(max(pieces.values()) + 1, dtype=np.float32)
    for piece, weight in table.items():
        weights[pieces[piece]] = weight
    return weights


def write_weights(path: Path, weights: PieceWeights, pieces: Mapping[str, int], excluded: Collection[int] = ()) -> None:
    """Write a table by id, one piece a line, zeros included, without the pieces in `excluded`.

    Raises InvalidInput (`not_finite_weights`) and writes nothing when a weight is negative or not finite.
    """
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise InvalidInput(
            "not_finite_weights",
            f"The table for {path.name} has weights that are negative or not finite: the training has failed earlier.",
        )
    left_out = frozenset(excluded)
    ordered = sorted((index, piece) for piece, index in pieces.items() if index not in left_out)
    # the shortest form that reads back as the same float32
    lines = ",\n".join(f"{json.dumps(piece, ensure_ascii=False)}: {weights[index]!s}" for index, piece in ordered)
    path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
