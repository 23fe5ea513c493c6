"""How good an encoder in training is: NDCG@10 on judged collections and on held-out pairs, scored in memory.

The learning curve of a run, and the best checkpoint by it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import Stemmer
from numpy.typing import NDArray
from sentence_transformers import SparseEncoder
from sentence_transformers.base.evaluation import BaseEvaluator

from models.export.collection import Collection, ndcg
from models.training.pairs import PairSet
from models.training.trainer import is_out_of_memory
from services.query.fusion import DEFAULT_WEIGHTS, fuse_lists

_DEPTH = 100


@dataclass(frozen=True)
class JudgedQueries:
    """What an evaluation needs of a collection; `grades` of each query by position of the document."""

    name: str
    documents: list[str]
    queries: list[str]
    grades: list[dict[int, int]]

    @cached_property
    def lexical(self) -> list[dict[str, float]]:
        """Each query's best documents by BM25, as `sparse_lists` gives them. No encoder changes it: made once.

        bm25s, Lucene's form, k1 1.2, b 0.75, Snowball's English stemmer, English stop words.
        """
        stemmer = Stemmer.Stemmer("english")
        index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
        index.index(
            bm25s.tokenize(self.documents, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False
        )
        asked = bm25s.tokenize(self.queries, stopwords="en", stemmer=stemmer, show_progress=False, return_ids=False)
        return [_top_documents(index.get_scores(query) if query else np.zeros(len(self.documents))) for query in asked]

    @classmethod
    def of(cls, collection: Collection, limit: int, seed: int = 0) -> JudgedQueries:
        """At most `limit` documents: every judged one as far as they fit, then others drawn at random."""
        place = {name: position for position, name in enumerate(collection.ids)}
        wanted = {place[d] for grades in collection.grades.values() for d in grades if d in place}
        rest = np.random.default_rng(seed).permutation([i for i in range(len(place)) if i not in wanted]).tolist()
        chosen = sorted((sorted(wanted) + rest)[: max(limit, len(wanted))])
        moved = {old: new for new, old in enumerate(chosen)}
        return cls(
            collection.name,
            [collection.documents[i] for i in chosen],
            list(collection.queries.values()),
            [{moved[place[d]]: g for d, g in collection.grades[q].items() if d in place} for q in collection.queries],
        )

    @classmethod
    def held_out(cls, pairs: PairSet, name: str = "held out") -> JudgedQueries:
        """Every passage is a document, each query's own ones its answers."""
        grades: list[dict[int, int]] = [{} for _ in pairs.queries]
        for query, passage in zip(pairs.query_rows.tolist(), pairs.passage_rows.tolist(), strict=True):
            grades[query][passage] = 1
        asked = [row for row, found in enumerate(grades) if found]
        return cls(name, list(pairs.passages), [pairs.queries[row] for row in asked], [grades[row] for row in asked])


def sparse_rankings(
    vectors: Sequence[Mapping[int, float]], queries: Sequence[Mapping[int, float]]
) -> list[dict[str, float]]:
    """Each query's best documents by dot product, by position as text, at most 100."""
    postings: dict[int, list[tuple[int, float]]] = {}
    for document, vector in enumerate(vectors):
        for piece, weight in vector.items():
            postings.setdefault(piece, []).append((document, weight))
    columns = {
        piece: (np.array([d for d, _ in found]), np.array([w for _, w in found])) for piece, found in postings.items()
    }
    lists = []
    for query in queries:
        scores = np.zeros(len(vectors))
        for piece, weight in query.items():
            if piece in columns:
                documents, weights = columns[piece]
                scores[documents] += weight * weights
        lists.append(_top_documents(scores))
    return lists


def _top_documents(scores: NDArray[np.floating]) -> dict[str, float]:
    order = np.argsort(-scores, kind="stable")[:_DEPTH]
    return {str(document): float(scores[document]) for document in order.tolist() if scores[document] > 0}


def hybrid_rankings(sparse: Sequence[dict[str, float]], lexical: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Both fused as a search does it, with the default weights."""
    return [
        dict(fuse_lists({"sparse": one, "lexical": other}, DEFAULT_WEIGHTS))
        for one, other in zip(sparse, lexical, strict=True)
    ]


def ndcg_by_query(judged: JudgedQueries, lists: Sequence[dict[str, float]]) -> NDArray[np.float64]:
    """NDCG@10 of each query, float64 [queries]."""
    return np.array(
        [
            ndcg(list(ranking), {str(document): grade for document, grade in grades.items()})
            for ranking, grades in zip(lists, judged.grades, strict=True)
        ]
    )


def mean_ndcg(judged: JudgedQueries, lists: Sequence[dict[str, float]]) -> float:
    """Mean NDCG@10 over the queries; 0 without any."""
    return float(ndcg_by_query(judged, lists).mean()) if judged.queries else 0.0


EncodeTexts = Callable[[Sequence[str]], list[dict[int, float]]]


def evaluation_figures(judged: JudgedQueries, documents: EncodeTexts, queries: EncodeTexts) -> dict[str, float]:
    """NDCG@10 of the encoder alone, of BM25 and of both; weights a document, and what a query costs.

    `flops` is the mean number of products of a query with a document: the sum over pieces of the share of queries and
    of documents that weigh it.
    """
    vectors, asked = documents(judged.documents), queries(judged.queries)
    sparse, lexical = sparse_rankings(vectors, asked), judged.lexical
    shares: dict[int, float] = {}
    for vector in vectors:
        for piece in vector:
            shares[piece] = shares.get(piece, 0.0) + 1 / len(vectors)
    return {
        "sparse": round(mean_ndcg(judged, sparse), 4),
        "bm25": round(mean_ndcg(judged, lexical), 4),
        "hybrid": round(mean_ndcg(judged, hybrid_rankings(sparse, lexical)), 4),
        "weights_a_document": round(float(np.mean([len(vector) for vector in vectors])), 1),
        "flops": round(float(np.mean([sum(shares.get(piece, 0.0) for piece in query) for query in asked])), 2),
    }


log = logging.getLogger("models.training")
CURVE, BEST, EVALUATION = "curve.jsonl", "best", "evaluation.json"
_BATCH_TEXTS = 32


def encode_texts(encode: Callable[..., Any], texts: Sequence[str]) -> list[dict[int, float]]:
    """Vocabulary id to weight of each text, by one of SparseEncoder's encode methods.

    Where memory runs out it is done again with half as many at once; for one text the error goes on.
    """
    if not texts:
        return []
    found, batch = None, _BATCH_TEXTS
    while found is None:
        try:
            found = encode(
                list(texts), batch_size=batch, convert_to_sparse_tensor=True, save_to_cpu=True, show_progress_bar=False
            ).coalesce()
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
            batch //= 2
            log.warning("memory ran out in an evaluation: going on with %d texts at once", batch)
    result: list[dict[int, float]] = [{} for _ in texts]
    rows, pieces = found.indices().tolist()
    for row, piece, weight in zip(rows, pieces, found.values().tolist(), strict=True):
        if weight > 0:
            result[row][piece] = weight
    return result


def read_curve(out: Path) -> list[dict[str, Any]]:
    """The evaluations so far, one a step: a run that was killed before its next checkpoint makes some again. A last
    line that a killed process left half written is passed over."""
    path = out / CURVE
    if not path.is_file():
        return []
    steps: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        steps[entry["step"]] = entry
    return list(steps.values())


def read_best_evaluation(out: Path) -> dict[str, Any] | None:
    """The evaluation of the encoder in OUT/best, which may be an earlier one than the curve's best line."""
    best = out / BEST
    if not best.is_dir() and best.with_name(f"{BEST}.old").is_dir():
        with suppress(OSError):  # (another device of the run was first)
            best.with_name(f"{BEST}.old").rename(best)  # (a run was killed between the two renames of `_put`)
    try:
        found: dict[str, Any] = json.loads((best / EVALUATION).read_bytes())
    except (OSError, ValueError):
        return None
    return found


class CurveEvaluator(BaseEvaluator):
    """Evaluates on each collection, writes curve.jsonl, keeps the best encoder in `best`, copies both out.

    The best has the highest mean NDCG@10 of the encoder alone over `judged`; `reported` are only shown.
    `save(model, directory)` writes an exportable checkpoint. A machine that is lost takes its checkpoints along, so
    everything goes to `copy_to` each time.
    """

    def __init__(
        self,
        judged: Sequence[JudgedQueries],
        out: Path,
        save: Callable[[SparseEncoder, Path], None],
        *,
        reported: Sequence[JudgedQueries] = (),
        copy_to: Path | None = None,
        report: Callable[[dict[str, Any]], None] = lambda entry: None,
    ) -> None:
        super().__init__()
        self.primary_metric = "mean"
        self._judged, self._reported, self._out, self._save = judged, reported, out, save
        self._copy_to, self._report = copy_to, report
        self._begun = time.monotonic()
        earlier = read_curve(out)
        self._seconds = max((entry["seconds"] for entry in earlier), default=0.0)
        kept = read_best_evaluation(out)
        self.best = -1.0 if kept is None else float(kept["mean"])
        if copy_to is not None:
            copy_to.mkdir(parents=True, exist_ok=True)

    def __call__(
        self, model: SparseEncoder, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        found = {
            judged.name: evaluation_figures(
                judged,
                lambda texts: encode_texts(model.encode_document, texts),
                lambda texts: encode_texts(model.encode_query, texts),
            )
            for judged in (*self._judged, *self._reported)
        }
        mean = sum(found[judged.name]["sparse"] for judged in self._judged) / len(self._judged)
        mean = round(mean, 4)
        entry = {
            "step": steps,
            "seconds": round(self._seconds + time.monotonic() - self._begun, 1),
            "mean": mean,
            "collections": found,
        }
        # the encoder before its line: killed in between, a run evaluates again instead of trusting a line about nothing
        better = mean > self.best
        if better:
            self.best = mean
            self._keep(model, entry)
        with (self._out / CURVE).open("a+b") as file:
            # (behind half a line, which a full disk leaves, this one would not be read either)
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            begin = b"" if file.read() in (b"", b"\n") else b"\n"
            file.write(begin + json.dumps(entry).encode() + b"\n")
        if self._copy_to is not None:
            self._copy_out(self._copy_to, better)
        self._report(entry)
        return {"mean": mean}

    def _keep(self, model: SparseEncoder, entry: dict[str, Any]) -> None:
        """Written beside the old one and then put in its place: a kill in between leaves one of them whole."""
        new = self._out / f"{BEST}.new"
        shutil.rmtree(new, ignore_errors=True)
        self._save(model, new)
        (new / EVALUATION).write_text(json.dumps(entry, indent=2) + "\n")
        _replace_directory(new, self._out / BEST)
        shutil.rmtree(new)

    def _copy_out(self, to: Path, better: bool) -> None:
        """A copy that fails (a disk that went away) costs the copy, not the run."""
        try:
            shutil.copy2(self._out / CURVE, to / CURVE)
            if better or not (to / BEST / EVALUATION).is_file():
                _replace_directory(self._out / BEST, to / BEST)
        except OSError as error:
            log.warning("nothing was copied to %s (%s); the run goes on", to, error.strerror or error)


def _replace_directory(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    made, old = target.with_name(target.name + ".put"), target.with_name(target.name + ".old")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(source, made)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    made.rename(target)
    shutil.rmtree(old, ignore_errors=True)
