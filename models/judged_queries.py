"""Judged queries and their rankings in memory: by BM25, by sparse vectors, by both.

BM25 is bm25s in Lucene's form, k1 1.2, b 0.75. Rankings are fused by `services.query.fusion` with the default weights,
as in a search. NDCG@10 is that of `models.export.collection`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import bm25s
import numpy as np
import Stemmer
from numpy.typing import NDArray

from models.export.collection import Collection, ndcg
from models.training.pairs import PairSet
from services.query.fusion import DEFAULT_WEIGHTS, fuse_lists
from services.text_encoding import replace_surrogates

_DEPTH = 100


class LexicalScores:
    """BM25 of documents: bm25s in Lucene's form, k1 1.2, b 0.75, Snowball's English stemmer, English stop words."""

    def __init__(self, documents: Sequence[str]) -> None:
        self._stemmer = Stemmer.Stemmer("english")
        self._index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
        tokens = bm25s.tokenize(documents, stopwords="en", stemmer=self._stemmer, show_progress=False)
        self._index.index(tokens, show_progress=False)
        self._size = len(documents)

    def of(self, text: str) -> NDArray[np.float64]:
        """Return the score of each document for a query, float64 [documents]; 0 without a common word."""
        [tokens] = bm25s.tokenize([text], stopwords="en", stemmer=self._stemmer, show_progress=False, return_ids=False)
        known = [token for token in tokens if token in self._index.vocab_dict]
        return np.asarray(self._index.get_scores(known) if known else np.zeros(self._size), dtype=np.float64)


@dataclass(frozen=True)
class JudgedQueries:
    """Judged queries and their documents. `grades` maps, for each query, positions of documents to grades."""

    name: str
    documents: list[str]
    queries: list[str]
    grades: list[dict[int, int]]

    @cached_property
    def lexical(self) -> list[dict[str, float]]:
        """Best documents of each query by BM25, as in `sparse_rankings`. No encoder changes them: computed once."""
        index = LexicalScores(self.documents)
        return [_top_documents(index.of(query)) for query in self.queries]

    def rewritten(self, documents: list[str]) -> JudgedQueries:
        """Return a copy with other texts for the encoder. BM25 still ranks the present ones."""
        changed = replace(self, documents=documents)
        vars(changed)["lexical"] = self.lexical
        return changed

    @classmethod
    def of(cls, collection: Collection, limit: int, seed: int = 0) -> JudgedQueries:
        """Take at most `limit` documents of a collection: all judged ones as far as they fit, then others at random."""
        positions = {name: position for position, name in enumerate(collection.ids)}
        judged = {positions[d] for grades in collection.grades.values() for d in grades if d in positions}
        rest = np.random.default_rng(seed).permutation([i for i in range(len(positions)) if i not in judged]).tolist()
        chosen = sorted((sorted(judged) + rest)[: max(limit, len(judged))])
        moved = {old: new for new, old in enumerate(chosen)}
        return cls(
            collection.name,
            [replace_surrogates(collection.documents[i]) for i in chosen],
            [replace_surrogates(query) for query in collection.queries.values()],
            [
                {moved[positions[d]]: g for d, g in collection.grades[q].items() if d in positions}
                for q in collection.queries
            ],
        )

    @classmethod
    def held_out(cls, pairs: PairSet, name: str = "held out") -> JudgedQueries:
        """Make a collection of held-out pairs: every passage is a document, and answers its queries."""
        grades: list[dict[int, int]] = [{} for _ in pairs.queries]
        for query, passage in zip(pairs.query_rows.tolist(), pairs.passage_rows.tolist(), strict=True):
            grades[query][passage] = 1
        judged = [row for row, answers in enumerate(grades) if answers]
        return cls(name, list(pairs.passages), [pairs.queries[row] for row in judged], [grades[row] for row in judged])


def sparse_rankings(
    vectors: Sequence[Mapping[int, float]], queries: Sequence[Mapping[int, float]]
) -> list[dict[str, float]]:
    """Rank at most 100 documents for each query by dot product; keys are positions of documents as texts."""
    postings: dict[int, list[tuple[int, float]]] = {}
    for document, vector in enumerate(vectors):
        for piece, weight in vector.items():
            postings.setdefault(piece, []).append((document, weight))
    columns = {
        piece: (np.array([d for d, _ in entries]), np.array([w for _, w in entries]))
        for piece, entries in postings.items()
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
    """Fuse both rankings as a search does, with the default weights."""
    return [
        dict(fuse_lists({"sparse": by_encoder, "lexical": by_bm25}, DEFAULT_WEIGHTS))
        for by_encoder, by_bm25 in zip(sparse, lexical, strict=True)
    ]


def ndcg_by_query(judged: JudgedQueries, lists: Sequence[dict[str, float]]) -> NDArray[np.float64]:
    """Return NDCG@10 of each query, float64 [queries]."""
    return np.array(
        [
            ndcg(list(ranking), {str(document): grade for document, grade in grades.items()})
            for ranking, grades in zip(lists, judged.grades, strict=True)
        ]
    )


def mean_ndcg(judged: JudgedQueries, lists: Sequence[dict[str, float]]) -> float:
    """Return the mean NDCG@10 over the queries; 0 without queries."""
    return float(ndcg_by_query(judged, lists).mean()) if judged.queries else 0.0


def expected_products(documents: Sequence[Mapping[int, float]], queries: Sequence[Mapping[int, float]]) -> float:
    """Return the expected number of products of a query and a document, sum_j P(q_j) P(d_j) (arXiv 2004.05665).

    It is the mean over the queries of the sum over their pieces of the share of documents that weigh them; 0 without
    queries or documents.
    """
    if not documents or not queries:
        return 0.0
    holders = Counter(piece for document in documents for piece in document)
    return sum(holders[piece] for query in queries for piece in query) / (len(documents) * len(queries))
