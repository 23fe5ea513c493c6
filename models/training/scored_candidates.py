"""Teachers that score chosen candidates of a query: files of scores, and cross-encoders.

`ScoredCandidates` holds scores of (query, passage) pairs; all other pairs have none, so a batch distils from a query's
own candidates alone. `join_score_files` reads files of {"query", "docs", "scores"} a line (the distillation data of
arXiv 2411.04403's authors). `score_with_cross_encoder` scores the passage and the hard negatives of each pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.reranking import CrossEncoderScorer
from models.training.mining import NO_PASSAGE
from models.training.pairs import (
    PairSet,
    Rows,
    pair_set_name,
    read_scored_documents,
    text_digest,
    texts_fingerprint,
)
from models.training.storage import ReadReport, load_or_make_rows, read_objects, read_text_member
from models.training.teacher_vectors import Scores
from models.training.teachers import hash_parameters
from services.errors import InvalidInput
from services.text_encoding import replace_surrogates

# Pairs between two saves: a small cross-encoder takes some minutes on a core.
_BLOCK_PAIRS = 512


@dataclass(frozen=True, slots=True, eq=False)
class ScoredCandidates:
    """Scores of (query, passage) pairs, as `models.training.teacher_vectors.TeacherVectors`.

    `keys` int64 [n], ascending and distinct: query row x 2^32 + passage row; `values` float32 [n].
    """

    name: str
    fingerprint: str
    passages_count: int
    keys: NDArray[np.int64]
    values: Scores

    @classmethod
    def of(
        cls,
        name: str,
        fingerprint: str,
        passages_count: int,
        query_rows: NDArray[np.integer],
        passage_rows: NDArray[np.integer],
        scores: NDArray[np.floating],
    ) -> Self:
        """Build from three arrays [n]. The first score of a pair stays."""
        keys, first = np.unique(_keys(query_rows, passage_rows), return_index=True)
        return cls(name, fingerprint, passages_count, keys, np.asarray(scores, dtype=np.float32)[first])

    def scores(self, query_rows: NDArray[np.integer], passage_rows: NDArray[np.integer]) -> Scores:
        """Return float32 [B, M] for rows [B] and [M]: NaN for a pair without a score, and for row -1."""
        wanted = _keys(np.asarray(query_rows)[:, None], np.asarray(passage_rows)[None, :])
        if not self.keys.size:
            return np.full(wanted.shape, np.nan, dtype=np.float32)
        places = np.minimum(np.searchsorted(self.keys, wanted), self.keys.size - 1)
        known = (self.keys[places] == wanted) & (np.asarray(passage_rows) >= 0)[None, :]
        return np.where(known, self.values[places], np.float32(np.nan))

    def best(self, query_rows: NDArray[np.integer], depth: int) -> Rows:
        """Return int32 [B, depth]: the scored passages of each query, best first, -1 after the last.

        So the candidates of a file of scores are a source of hard negatives, see `models.training.mining`.
        """
        rows = np.full((len(query_rows), depth), NO_PASSAGE, dtype=np.int32)
        starts = np.searchsorted(self.keys, _keys(np.asarray(query_rows), np.zeros(len(query_rows), np.int64)))
        ends = np.searchsorted(self.keys, _keys(np.asarray(query_rows) + 1, np.zeros(len(query_rows), np.int64)))
        for place, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            order = start + np.argsort(-self.values[start:end], kind="stable")[:depth]
            rows[place, : len(order)] = self.keys[order] & 0xFFFFFFFF
        return rows


def _keys(query_rows: NDArray[np.integer], passage_rows: NDArray[np.integer]) -> NDArray[np.int64]:
    return (query_rows.astype(np.int64) << 32) + passage_rows


def join_score_files(pairs: PairSet, files: Iterable[Path]) -> tuple[PairSet, list[ScoredCandidates], list[ReadReport]]:
    """Return the set with the files' documents as further passages, and the scores and the report of each file.

    A line whose query is in no pair is refused in the report (`unknown_query`): the pairs may be capped, or held out.
    A bad line is refused too, see `read_scored_documents`. The second score of the same query and document is left out.

    Raises InvalidInput (`no_scores`) for a file without a line for any query of the pairs, and the errors of
    `read_objects`.
    """
    query_of = {text_digest(text): row for row, text in enumerate(pairs.queries)}
    passage_of = {text_digest(text): row for row, text in enumerate(pairs.passages)}
    passages = list(pairs.passages)
    found: list[tuple[str, ReadReport, list[tuple[int, int, float]]]] = []
    for path in files:
        report, scored = ReadReport(str(path)), []
        for number, record in read_objects(path, report):
            try:
                digest = text_digest(read_text_member(record, "query"))
                documents = read_scored_documents(record)
                if digest not in query_of:
                    raise InvalidInput("unknown_query", "its query is in no pair of the run")
            except InvalidInput as error:
                report.refuse(number, error)
                continue
            report.taken += 1
            for text, score in zip(*documents, strict=True):
                row = passage_of.setdefault(text_digest(text), len(passages))
                if row == len(passages):
                    passages.append(text)
                scored.append((query_of[digest], row, score))
        if not scored:
            raise InvalidInput(
                "no_scores",
                f'{path} has no scores for the queries of the pairs: each line is {{"query": "...", "docs": ["...", '
                f'"..."], "scores": [1.5, 0.2]}}. ' + "; ".join(report.examples),
            )
        found.append((pair_set_name(path), report, scored))
    joined = replace(pairs, passages=passages)
    candidates = []
    for name, _, scored in found:
        queries, rows, scores = (np.array(column) for column in zip(*scored, strict=True))
        fingerprint = texts_fingerprint([name, *(f"{query} {row} {score}" for query, row, score in scored)])
        candidates.append(ScoredCandidates.of(name, fingerprint, len(passages), queries, rows, scores))
    return joined, candidates, [report for _, report, _ in found]


def score_with_cross_encoder(
    name: str,
    scorer: CrossEncoderScorer,
    pairs: PairSet,
    negatives: Rows,
    directory: Path,
    done: Callable[[int], object] = lambda links: None,
) -> ScoredCandidates:
    """Score the passage and the hard negatives of each link; keep the scores in `directory` by block.

    `name` is that of the teacher, `negatives` is int32 [links, count]. `done` receives the number of finished links.

    Raises InvalidInput (`not_finite_scores`) and ConfigurationError (`unwritable_directory`).
    """
    candidates = np.concatenate([pairs.passage_rows[:, None], negatives], axis=1)
    texts = [pairs.fingerprint, texts_fingerprint([candidates.astype("<i4").tobytes().hex()])]
    fingerprint = texts_fingerprint([hash_parameters(scorer.model), str(scorer.max_pieces), *texts])
    arrays = load_or_make_rows(
        directory / f"scores-{name}-{fingerprint}",
        len(pairs),
        _BLOCK_PAIRS,
        lambda start, end: {"scores": _score_block(name, scorer, pairs, np.arange(start, end), candidates[start:end])},
        about={"teacher": name},
        done=done,
    )
    known = candidates != NO_PASSAGE
    queries = np.broadcast_to(pairs.query_rows[:, None], candidates.shape)
    return ScoredCandidates.of(
        name, fingerprint, len(pairs.passages), queries[known], candidates[known], arrays["scores"][known]
    )


def _score_block(
    name: str, scorer: CrossEncoderScorer, pairs: PairSet, links: NDArray[np.integer], candidates: Rows
) -> NDArray[np.float32]:
    """Return float32 [links, candidates]; 0 in place of a missing candidate."""
    scores = np.zeros(candidates.shape, dtype=np.float32)
    asked: list[tuple[str, str]] = []
    for row, column in np.argwhere(candidates >= 0).tolist():
        query, passage = pairs.queries[pairs.query_rows[links[row]]], pairs.passages[candidates[row, column]]
        asked.append((replace_surrogates(query), replace_surrogates(passage)))
    if asked:
        scores[candidates >= 0] = scorer.score_pairs(asked)
    if not np.isfinite(scores).all():
        raise InvalidInput(
            "not_finite_scores", f"The cross-encoder {name} gives NaN or infinity: check the model's weights."
        )
    return scores
