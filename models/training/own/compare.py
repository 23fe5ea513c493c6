"""Encoders side by side as they will be served: int8, windows, top-k, and BM25 beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.registry import load_encoder
from models.training.evaluation import Judged, hybrid_lists, ndcgs, sparse_lists
from services.manifest import resolve
from services.query_table import QueryTable
from services.vectors import merge_max

_LONGEST_QUERY = 8192
_TOGETHER = 64
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Served:
    """A document's vector and a query's as the service makes them, of one encoder."""

    documents: list[dict[int, float]]
    milliseconds_a_document: float
    table: QueryTable

    def queries(self, texts: Sequence[str]) -> list[dict[int, float]]:
        return [self.table.encode(text, _LONGEST_QUERY).by_id() for text in texts]


def served(name_or_path: str | Path, documents: Sequence[str], done: Progress = lambda count, total: None) -> Served:
    """Encodes whole documents, cut into the encoder's own windows, maximum over windows, its top-k."""
    encoder = load_encoder(str(name_or_path))
    vectors: list[dict[int, float]] = []
    began = time.process_time()
    for at in range(0, len(documents), _TOGETHER):
        cuts = [encoder.windows(text) for text in documents[at : at + _TOGETHER]]
        found = iter(encoder.encode([window for made in cuts for window in made]))
        for made in cuts:
            vector = merge_max([next(found) for _ in made]).top(encoder.manifest.top_k)
            vectors.append(dict(zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)))
        done(len(vectors), len(documents))
    spent = (time.process_time() - began) * 1e3 / max(1, len(documents))
    return Served(vectors, round(spent, 2), QueryTable.load(resolve(str(name_or_path))))


def compare(judged: Judged, encoders: Mapping[str, Served]) -> dict[str, Any]:
    """NDCG@10 of BM25, of each encoder alone and of each with BM25; and how sure each difference to BM25 is.

    `encoders` were given the collection's documents, in its order.
    """
    lexical = judged.lexical
    scores = {"bm25": ndcgs(judged, lexical)}
    for name, one in encoders.items():
        sparse = sparse_lists(one.documents, one.queries(judged.queries))
        scores[name] = ndcgs(judged, sparse)
        scores[f"{name} with bm25"] = ndcgs(judged, hybrid_lists(sparse, lexical))
    return {
        "documents": len(judged.documents),
        "queries": len(judged.queries),
        "ndcg_at_10": {name: round(float(found.mean()), 4) for name, found in scores.items()},
        "scores": scores,
    }


def interval(new: NDArray[np.float64], old: NDArray[np.float64], draws: int = 2000) -> tuple[float, float]:
    """The middle 95 % of the mean difference over queries, by paired bootstrap with a fixed seed."""
    difference = new - old
    chosen = np.random.default_rng(0).integers(0, len(difference), (draws, len(difference)))
    low, high = np.quantile(difference[chosen].mean(axis=1), [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)
