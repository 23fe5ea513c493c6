"""Feedback: the service's Rocchio over the best documents (pseudo relevance), and over judged ones.

    python -m benchmarks feedback DATA --json benchmarks/results/feedback.json

Collections with deep judgements (adi, cisi, medline; cranfield has grades) and with sparse ones (cosqa, qmsum_meetings:
one document per query) are averaged apart. Each parameter is varied around the default in five ways, which differ in
the list that gives the documents, and in whether the second round is fused with the lexical list. Sparse lists are
exact, lexical lists come from a real node, 100 candidates each. Explicit feedback is simulated: of the first ten, up to
three relevant documents are liked and up to three others disliked; shown documents then count neither as found nor as
missed (docs/decisions/0155).
"""

import argparse
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

from benchmarks.collections import (
    CANDIDATE_COUNT,
    DocumentWindows,
    encode_collection_windows,
    judged_arguments,
    open_sample,
    search_lexical_lists,
)
from benchmarks.measuring import run_benchmark
from benchmarks.service import open_node, read_opensearch_version
from cli.relevance.exact_search import ExactIndex
from cli.relevance.metrics import Ranking, Rankings, measure_rankings
from models.judged_collection import JudgedCollection, Judgements
from models.registry import load_encoder
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable, QueryVector
from services.encoders.vectors import SparseVector
from services.index_spec import IndexSpec
from services.opensearch.client import SyncSearchClient
from services.opensearch.stored_document import document_vector
from services.query.expansion import (
    FEEDBACK_DOCUMENTS,
    QueryBlend,
    RocchioParameters,
    TableWeight,
    apply_rocchio,
    compute_centroid,
    scale_to_weight,
)
from services.query.fusion import DEFAULT_WEIGHTS, fuse_lists

SPARSE_JUDGEMENTS = ("cosqa", "qmsum_meetings")
MAX_QUERIES = 1000
# For each way: the list that gives the documents, and whether the second round is fused with the lexical list.
FEEDBACK_WAYS: Final[Mapping[str, tuple[str, bool]]] = {
    "neither": ("sparse", False),
    "before": ("hybrid", False),
    "after": ("sparse", True),
    "both": ("hybrid", True),
    "by lexical, after": ("lexical", True),
}
# Subtracts the score of the disliked pieces from each candidate, which no boost of OpenSearch can do.
UNLIKE_SUBTRACTED = "like, and the score of unlike subtracted"
_DEFAULT_SETTING = (FEEDBACK_DOCUMENTS, RocchioParameters())


@dataclass(frozen=True)
class FeedbackCollection:
    """Collection with the lists of the first round, by name."""

    name: str
    judgements: Judgements
    queries: dict[str, QueryVector]
    windows: DocumentWindows
    vectors: dict[str, SparseVector]
    index: ExactIndex
    lists: dict[str, Rankings]

    @classmethod
    def of(
        cls, name: str, collection: JudgedCollection, windows: DocumentWindows, table: QueryTable, lexical: Rankings
    ) -> "FeedbackCollection":
        top_k = IndexSpec.model_validate({}).document_top_k
        vectors = {document: document_vector(results, top_k) for document, results in windows.items()}
        queries = {query: table.encode(text) for query, text in collection.judged.items()}
        index = ExactIndex(vectors)
        sparse = {query: index.search(vector.by_id(), CANDIDATE_COUNT) for query, vector in queries.items()}
        lists: dict[str, Rankings] = {"sparse": sparse, "lexical": lexical, "hybrid": fuse_named_lists(sparse, lexical)}
        return cls(name, collection.known_judgements(), queries, windows, vectors, index, lists)

    def second_round(
        self, choose_by: str, documents: int, rocchio: RocchioParameters, table: TableWeight, *, whole: bool = False
    ) -> Rankings:
        """Return the sparse lists after feedback; `whole`: from documents instead of their best windows."""
        results: dict[str, Ranking] = {}
        for query, vector in self.queries.items():
            by_id = vector.by_id()
            chosen = [
                document for document, _ in self.lists[choose_by].get(query, ())[:documents] if document in self.windows
            ]
            liked = [self.vectors[document] if whole else self._best_window(document, by_id) for document in chosen]
            moved = apply_rocchio(QueryBlend.of(vector), rocchio, table, MAX_QUERIES, liked=liked).vector
            results[query] = self.index.search(moved.by_id(), CANDIDATE_COUNT)
        return results

    def _best_window(self, document: str, query: Mapping[int, float]) -> SparseVector:
        return max(self.windows[document], key=lambda window: window.vector.dot(query)).vector


def feedback(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 of Rocchio feedback by its parameters, and of liked and disliked documents."""
    run_benchmark("feedback", judged_arguments("feedback", feedback.__doc__), measure_feedback, argv)


def measure_feedback(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every collection and their means."""
    encoder = load_encoder(arguments.encoder, threads=arguments.threads)
    table = QueryTable.load(resolve_model_directory(arguments.encoder))
    results: dict[str, Any] = {}
    explicit: dict[str, Any] = {}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        version = read_opensearch_version(settings)
        for label in arguments.collections.split(","):
            name = label.partition("/")[0]
            collection = open_sample(arguments.data, label)
            windows = encode_collection_windows(collection, encoder, arguments.cache)
            lexical = search_lexical_lists(search, settings, collection, CANDIDATE_COUNT)
            subject = FeedbackCollection.of(label, collection, windows, table, lexical)
            results[label] = measure_pseudo_feedback(subject, table)
            if name not in SPARSE_JUDGEMENTS:
                explicit[label] = measure_explicit_feedback(subject, table)
            print(label, results[label]["without"], results[label]["default"], explicit.get(label, ""), flush=True)
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "candidates": CANDIDATE_COUNT,
        "ways": {
            way: {"choose_by": choose_by, "mode": "hybrid" if after else "sparse"}
            for way, (choose_by, after) in FEEDBACK_WAYS.items()
        },
        "mean_ndcg@10": mean_figures(results),
        "by_collection": results,
        "explicit": explicit,
    }


def list_settings() -> dict[str, tuple[int, RocchioParameters]]:
    """Return the default, and settings that differ from it in one parameter."""
    documents, rocchio = _DEFAULT_SETTING
    results = {"default": _DEFAULT_SETTING}
    results |= {f"documents {n}": (n, rocchio) for n in (1, 2, 5, 10)}
    results |= {f"pieces {n}": (documents, replace(rocchio, pieces=n)) for n in (5, 10, 20, 30, 50, 100)}
    results |= {f"beta {b}": (documents, replace(rocchio, beta=b)) for b in (0.1, 0.2, 0.3, 0.5, 0.8, 1.2)}
    return {name: setting for name, setting in results.items() if name == "default" or setting != _DEFAULT_SETTING}


def measure_pseudo_feedback(subject: FeedbackCollection, table: QueryTable) -> dict[str, Any]:
    """Return the figures of each setting and way, and the changes by query at the default."""

    def quality(rankings: Rankings) -> dict[str, float]:
        mean = measure_rankings(subject.judgements, rankings).mean
        return {name: round(mean[name], 5) for name in ("ndcg@10", "recall@100")}

    def ways(second: Callable[[str], Rankings]) -> dict[str, Any]:
        rounds = {choose_by: second(choose_by) for choose_by in ("sparse", "hybrid", "lexical")}
        return {
            way: quality(fuse_named_lists(rounds[choose_by], subject.lists["lexical"]) if after else rounds[choose_by])
            for way, (choose_by, after) in FEEDBACK_WAYS.items()
        }

    documents, rocchio = _DEFAULT_SETTING

    def unweighted(piece: int) -> float:
        return 1.0 if table.weight(piece) > 0 else 0.0

    results: dict[str, Any] = {"without": {name: quality(rankings) for name, rankings in subject.lists.items()}}
    for name, (count, tried) in list_settings().items():
        results[name] = ways(lambda choose_by, n=count, r=tried: subject.second_round(choose_by, n, r, table.weight))  # type: ignore[misc]  # mypy infers no types of defaults
    results["without query table weights"] = ways(
        lambda choose_by: subject.second_round(choose_by, documents, rocchio, unweighted)
    )
    results["whole documents"] = ways(
        lambda choose_by: subject.second_round(choose_by, documents, rocchio, table.weight, whole=True)
    )
    second = subject.second_round("hybrid", documents, rocchio, table.weight)
    both_rounds = fuse_named_lists(subject.lists["sparse"], second, subject.lists["lexical"])
    results["both rounds' lists fused"] = {"both": quality(both_rounds)}
    results["queries"] = _count_changes(subject, fuse_named_lists(second, subject.lists["lexical"]))
    return results


def _count_changes(subject: FeedbackCollection, after: Rankings) -> dict[str, int]:
    """Return how many queries changed by more than .01 NDCG@10 from hybrid without to hybrid with feedback."""
    before, changed = (
        measure_rankings(subject.judgements, lists).by_query for lists in (subject.lists["hybrid"], after)
    )
    changes = [changed[query]["ndcg@10"] - before[query]["ndcg@10"] for query in before]
    return {
        "better": sum(change > 0.01 for change in changes),
        "worse": sum(change < -0.01 for change in changes),
        "all": len(changes),
    }


def measure_explicit_feedback(subject: FeedbackCollection, table: QueryTable) -> dict[str, Any]:
    """Return NDCG@10 of documents not shown yet, after feedback on judged documents of the first ten."""
    rows = {
        "the query alone": RocchioParameters(beta=0, gamma=0),
        "like": RocchioParameters(gamma=0),
        "unlike": RocchioParameters(beta=0),
        "like and unlike": RocchioParameters(),
        "like and unlike, beta 1": RocchioParameters(beta=1.0),
        "like and unlike, gamma 0.5": RocchioParameters(gamma=0.5),
    }
    rankings: dict[str, dict[str, Ranking]] = {name: {} for name in (*rows, UNLIKE_SUBTRACTED)}
    left: Judgements = {}
    for query, vector in subject.queries.items():
        grades = subject.judgements[query]
        first = [document for document, _ in subject.lists["sparse"][query][:10]]
        liked = [document for document in first if grades.get(document, 0) > 0][:3]
        unliked = [document for document in first if grades.get(document, 0) <= 0][:3]
        shown = {*liked, *unliked}
        rest = {document: grade for document, grade in grades.items() if document not in shown and grade > 0}
        if not rest or not liked:
            continue
        left[query] = rest
        good, bad = ([subject.vectors[document] for document in side] for side in (liked, unliked))
        results = {
            name: subject.index.search(_move_query(vector, rocchio, table, good, bad), 3 * CANDIDATE_COUNT)
            for name, rocchio in rows.items()
        }
        minus = scale_to_weight(
            "",
            compute_centroid(bad, table.weight),
            RocchioParameters().pieces,
            RocchioParameters().gamma * sum(vector.weights),
        )
        away = dict(zip(subject.index.names, subject.index.scores(minus.weights).tolist(), strict=True))
        results[UNLIKE_SUBTRACTED] = sorted(
            ((document, s - away[document]) for document, s in results["like"]), key=lambda pair: -pair[1]
        )
        for name, listed in results.items():
            rankings[name][query] = [(document, score) for document, score in listed if document not in shown][
                :CANDIDATE_COUNT
            ]
    figures = {name: round(measure_rankings(left, ranking).mean["ndcg@10"], 5) for name, ranking in rankings.items()}
    return {"queries": len(left), "ndcg@10": figures}


def _move_query(
    query: QueryVector,
    rocchio: RocchioParameters,
    table: QueryTable,
    liked: list[SparseVector],
    unliked: list[SparseVector],
) -> dict[int, float]:
    return apply_rocchio(
        QueryBlend.of(query), rocchio, table.weight, MAX_QUERIES, liked=liked, unliked=unliked
    ).vector.by_id()


def mean_figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean NDCG@10 over the collections of each kind, and over all."""
    sparse = [name for name in results if name.partition("/")[0] in SPARSE_JUDGEMENTS]
    groups = {"deep": [name for name in results if name not in sparse], "sparse": sparse, "all": list(results)}
    rows = next(iter(results.values()))
    return {
        group: {
            row: {
                way: round(sum(results[name][row][way]["ndcg@10"] for name in names) / len(names), 5)
                for way in rows[row]
            }
            for row in rows
            if row != "queries"
        }
        for group, names in groups.items()
        if names
    }


def fuse_named_lists(*lists: Rankings) -> dict[str, Ranking]:
    """Fuse lists as hybrid search does. If there are three, the first two share the weight of the sparse list."""
    *sparse, lexical = lists
    weights = {f"{n}": DEFAULT_WEIGHTS["sparse"] / len(sparse) for n in range(len(sparse))}
    weights["lexical"] = DEFAULT_WEIGHTS["lexical"]
    return {
        query: fuse_lists(
            {f"{n}": dict(rankings.get(query, ())) for n, rankings in enumerate(sparse)}
            | {"lexical": dict(lexical.get(query, ()))},
            weights,
        )
        for query in {**sparse[0], **lexical}
    }
