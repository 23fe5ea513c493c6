"""How good an encoder in training is: NDCG@10 on judged collections and on held-out pairs, scored in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import bm25s
import numpy as np
import Stemmer
from numpy.typing import NDArray

from models.export.collection import Collection, ndcg
from models.training.pairs import PairSet
from services.fusion import DEFAULT_WEIGHTS, fuse

_DEPTH = 100


@dataclass(frozen=True)
class Judged:
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
        return [_best(index.get_scores(query) if query else np.zeros(len(self.documents))) for query in asked]

    @classmethod
    def of(cls, collection: Collection, limit: int, seed: int = 0) -> Judged:
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
    def held_out(cls, pairs: PairSet, name: str = "held out") -> Judged:
        """Every passage is a document, each query's own ones its answers."""
        grades: list[dict[int, int]] = [{} for _ in pairs.queries]
        for query, passage in zip(pairs.query_rows.tolist(), pairs.passage_rows.tolist(), strict=True):
            grades[query][passage] = 1
        asked = [row for row, found in enumerate(grades) if found]
        return cls(name, list(pairs.passages), [pairs.queries[row] for row in asked], [grades[row] for row in asked])


def sparse_lists(
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
        lists.append(_best(scores))
    return lists


def _best(scores: NDArray[np.floating]) -> dict[str, float]:
    order = np.argsort(-scores, kind="stable")[:_DEPTH]
    return {str(document): float(scores[document]) for document in order.tolist() if scores[document] > 0}


def hybrid_lists(sparse: Sequence[dict[str, float]], lexical: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Both fused as a search does it, with the default weights."""
    return [
        dict(fuse({"sparse": one, "lexical": other}, DEFAULT_WEIGHTS))
        for one, other in zip(sparse, lexical, strict=True)
    ]


def ndcgs(judged: Judged, lists: Sequence[dict[str, float]]) -> NDArray[np.float64]:
    """NDCG@10 of each query, float64 [queries]."""
    return np.array(
        [
            ndcg(list(ranking), {str(document): grade for document, grade in grades.items()})
            for ranking, grades in zip(lists, judged.grades, strict=True)
        ]
    )


def mean_ndcg(judged: Judged, lists: Sequence[dict[str, float]]) -> float:
    """Mean NDCG@10 over the queries; 0 without any."""
    return float(ndcgs(judged, lists).mean()) if judged.queries else 0.0


Encode = Callable[[Sequence[str]], list[dict[int, float]]]


def figures(judged: Judged, documents: Encode, queries: Encode) -> dict[str, float]:
    """NDCG@10 of the encoder alone, of BM25 and of both; weights a document, and what a query costs.

    `flops` is the mean number of products of a query with a document: the sum over pieces of the share of queries and
    of documents that weigh it.
    """
    vectors, asked = documents(judged.documents), queries(judged.queries)
    sparse, lexical = sparse_lists(vectors, asked), judged.lexical
    shares: dict[int, float] = {}
    for vector in vectors:
        for piece in vector:
            shares[piece] = shares.get(piece, 0.0) + 1 / len(vectors)
    return {
        "sparse": round(mean_ndcg(judged, sparse), 4),
        "bm25": round(mean_ndcg(judged, lexical), 4),
        "hybrid": round(mean_ndcg(judged, hybrid_lists(sparse, lexical)), 4),
        "weights_a_document": round(float(np.mean([len(vector) for vector in vectors])), 1),
        "flops": round(float(np.mean([sum(shares.get(piece, 0.0) for piece in query) for query in asked])), 2),
    }
