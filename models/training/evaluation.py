"""Evaluation of an encoder in training: NDCG@10 on judged collections and held-out pairs, in memory.

`CurveEvaluator` writes the learning curve (curve.jsonl) and keeps the best checkpoint in `best`.

`evaluation_figures` gives NDCG@10 of the encoder alone, of BM25 and of their fusion (`models.judged_queries`). Each
evaluation also has NDCG@10 of each query (`by_query`), so that two runs can be compared.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SparseEncoder
from sentence_transformers.base.evaluation import BaseEvaluator

from models.judged_queries import (
    JudgedQueries,
    expected_products,
    hybrid_rankings,
    mean_ndcg,
    ndcg_by_query,
    sparse_rankings,
)
from models.training.trainer import is_out_of_memory
from services.directories import replace_directory, restore_directory
from services.errors import ConfigurationError

log = logging.getLogger("models.training")
_BATCH_TEXTS = 32
CURVE, BEST, EVALUATION = "curve.jsonl", "best", "evaluation.json"
EncodeTexts = Callable[[Sequence[str]], list[dict[int, float]]]


class CurveEvaluator(BaseEvaluator):
    """Evaluator of a run: evaluates each collection, writes curve.jsonl, keeps the best encoder in `best`.

    The best encoder has the highest mean NDCG@10, without BM25, over `judged`; `reported` are only shown. With
    `max_weights`, encoders of at most this many weights a document may win; else those from the step `ramp_end` on,
    where the regulariser has its whole weight, and the start. An encoder before the ramp's end is dense and would win.
    Until one may win, `best` holds the best of the others (`"eligible": false`).

    `save(model, directory)` writes an exportable checkpoint. Curve and best encoder are copied to `copy_to` after each
    evaluation, because a machine that fails may take its disk along.
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
        ramp_end: int = 0,
        max_weights: float | None = None,
    ) -> None:
        super().__init__()
        self.primary_metric = "mean"
        self._judged, self._reported, self._out, self._save = judged, reported, out, save
        self._copy_to, self._report = copy_to, report
        self._started = time.monotonic()
        earlier = read_curve(out)
        self._seconds = max((entry["seconds"] for entry in earlier), default=0.0)
        kept = read_best_evaluation(out)
        self.best = (False, -1.0) if kept is None else rank_evaluation(kept)
        self._ramp_end, self._max_weights = ramp_end, max_weights
        if copy_to is not None:
            copy_to.mkdir(parents=True, exist_ok=True)

    def __call__(
        self, model: SparseEncoder, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        figures: dict[str, dict[str, float]] = {}
        by_query: dict[str, float] = {}
        for judged in (*self._judged, *self._reported):
            figures[judged.name], scores = evaluation_figures(
                judged,
                lambda texts: encode_texts(model.encode_document, texts),
                lambda texts: encode_texts(model.encode_query, texts),
            )
            by_query |= {f"{judged.name}/{at}": round(float(score), 5) for at, score in enumerate(scores)}
        mean = sum(figures[judged.name]["sparse"] for judged in self._judged) / len(self._judged)
        mean = round(mean, 4)
        entry = {
            "step": steps,
            "seconds": round(self._seconds + time.monotonic() - self._started, 1),
            "mean": mean,
            "eligible": self._is_eligible(steps, figures),
            "collections": figures,
            "by_query": by_query,
        }
        # The encoder is written before its line: a run that is killed between them evaluates again.
        better = rank_evaluation(entry) > self.best
        if better:
            self.best = rank_evaluation(entry)
            self._replace_best(model, entry)
        with (self._out / CURVE).open("a+b") as file:
            # a full disk can leave half a line; a line appended to it could not be read
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            begin = b"" if file.read() in (b"", b"\n") else b"\n"
            file.write(begin + json.dumps(entry).encode() + b"\n")
        if self._copy_to is not None:
            self._copy_out(self._copy_to, better)
        self._report(entry)
        return {"mean": mean}

    def _is_eligible(self, step: int, figures: Mapping[str, Mapping[str, float]]) -> bool:
        if self._max_weights is None:
            return step == 0 or step >= self._ramp_end
        weights = [figures[judged.name]["weights_a_document"] for judged in self._judged]
        return sum(weights) / len(weights) <= self._max_weights

    def _replace_best(self, model: SparseEncoder, entry: dict[str, Any]) -> None:
        """Write the encoder beside the old one, then replace it: a kill in between leaves one of them complete."""
        with replace_directory(self._out / BEST) as fresh:
            self._save(model, fresh)
            (fresh / EVALUATION).write_text(json.dumps(entry, indent=2) + "\n")

    def _copy_out(self, to: Path, better: bool) -> None:
        """Copy curve and best encoder. A failed copy (a disk that went away) is logged; the run continues."""
        try:
            shutil.copy2(self._out / CURVE, to / CURVE)
            if better or not (to / BEST / EVALUATION).is_file():
                with replace_directory(to / BEST) as fresh:
                    shutil.copytree(self._out / BEST, fresh, dirs_exist_ok=True)
        except OSError as error:
            log.warning("nothing was copied to %s (%s); the run continues", to, error.strerror or error)
        except ConfigurationError as error:
            log.warning("nothing was copied to %s (%s); the run continues", to, error)


def rank_evaluation(entry: Mapping[str, Any]) -> tuple[bool, float]:
    """Return the rank of an evaluation: whether its encoder may win, then its mean. Runs of before have no mark."""
    return bool(entry.get("eligible", True)), float(entry["mean"])


def read_curve(out: Path) -> list[dict[str, Any]]:
    """Read the evaluations so far, one for each step.

    A run that was killed before its next checkpoint repeats steps; the last evaluation of a step counts. A half written
    last line is skipped.
    """
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
    """Read the evaluation of the encoder in OUT/best, None without one. The curve may have a better, later line."""
    best = out / BEST
    restore_directory(best)
    try:
        evaluation: dict[str, Any] = json.loads((best / EVALUATION).read_bytes())
    except (OSError, ValueError):
        return None
    return evaluation


def encode_texts(encode: Callable[..., Any], texts: Sequence[str]) -> list[dict[int, float]]:
    """Encode texts with an encode method of SparseEncoder; return vocabulary id to weight for each.

    When memory runs out, it halves the batch and retries; for a batch of one text the error is raised.
    """
    if not texts:
        return []
    vectors, batch = None, _BATCH_TEXTS
    while vectors is None:
        try:
            vectors = encode(
                list(texts), batch_size=batch, convert_to_sparse_tensor=True, save_to_cpu=True, show_progress_bar=False
            ).coalesce()
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
            batch //= 2
            log.warning("memory ran out in an evaluation: continuing with %d texts at once", batch)
    result: list[dict[int, float]] = [{} for _ in texts]
    rows, pieces = vectors.indices().tolist()
    for row, piece, weight in zip(rows, pieces, vectors.values().tolist(), strict=True):
        if weight > 0:
            result[row][piece] = weight
    return result


def evaluation_figures(
    judged: JudgedQueries, documents: EncodeTexts, queries: EncodeTexts
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Return NDCG@10 of the encoder alone, of BM25 and of both, weights a document, and the cost of a query.

    The second member is NDCG@10 of each query by the encoder alone, float64 [queries].

    `flops` is the expected number of products, see `models.judged_queries.expected_products`.
    """
    vectors, query_vectors = documents(judged.documents), queries(judged.queries)
    sparse, lexical = sparse_rankings(vectors, query_vectors), judged.lexical
    by_query = ndcg_by_query(judged, sparse)
    figures = {
        "sparse": round(float(by_query.mean()), 4) if by_query.size else 0.0,
        "bm25": round(mean_ndcg(judged, lexical), 4),
        "hybrid": round(mean_ndcg(judged, hybrid_rankings(sparse, lexical)), 4),
        "weights_a_document": round(float(np.mean([len(vector) for vector in vectors])), 1),
        "flops": round(expected_products(vectors, query_vectors), 2),
    }
    return figures, by_query
