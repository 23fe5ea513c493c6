"""What does feedback do to rankings? The service's Rocchio over the best documents, and over judged ones.

    python -m benchmarks.feedback DATA --json benchmarks/results/feedback.json

Deep judgements (adi, cisi, medline; cranfield has grades) and sparse ones (cosqa, qmsum_meetings: one document a query)
are kept apart. Each parameter is varied around the default, in five ways: which list the documents are chosen from
(interpolation before the round) and whether the second round's list is fused with the keyword list (after it). Sparse
lists are exact, of the service's own query vectors; keyword lists come from a real node; 100 candidates each.
Explicit feedback is simulated: of the first ten, up to three relevant documents are liked and up to three others not,
and what was shown counts no more, neither as found nor as missed.
"""

import argparse
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

from benchmarks.collection_windows import Windows, collection_windows
from benchmarks.judged import CANDIDATES, arguments
from benchmarks.keyword_lists import keyword_lists
from benchmarks.record import run
from benchmarks.sample import sampled
from benchmarks.service import node_settings, opensearch_version
from cli.relevance.collection import Collection, Judgements, open_collection
from cli.relevance.exact import ExactIndex
from cli.relevance.metrics import Ranking, Rankings, measure
from models.registry import load_encoder
from services.fusion import DEFAULT_WEIGHTS, fuse
from services.index_spec import IndexSpec
from services.manifest import resolve
from services.opensearch.client import SyncSearch
from services.opensearch.stored_windows import document_vector
from services.query_blend import Blend
from services.query_table import QueryTable, QueryVector
from services.rocchio import DOCUMENTS, Rocchio, TableWeight, centroid, moved, share_of
from services.vectors import SparseVector

SPARSE_JUDGEMENTS = ("cosqa", "qmsum_meetings")
MOST = 1000
# Way: the list that documents are chosen from, and whether the second round's list is fused with the keyword list.
WAYS: Final[Mapping[str, tuple[str, bool]]] = {
    "neither": ("sparse", False),
    "before": ("hybrid", False),
    "after": ("sparse", True),
    "both": ("hybrid", True),
    "by keywords, after": ("lexical", True),
}
# What OpenSearch cannot do by a boost: the score of the unliked pieces taken from that of each candidate.
SUBTRACTED = "like, and the score of unlike subtracted"
_CENTRE = (DOCUMENTS, Rocchio())


def settings_tried() -> dict[str, tuple[int, Rocchio]]:
    """The default, and what differs from it in one parameter."""
    documents, rocchio = _CENTRE
    found = {"default": _CENTRE}
    found |= {f"documents {n}": (n, rocchio) for n in (1, 2, 5, 10)}
    found |= {f"pieces {n}": (documents, replace(rocchio, pieces=n)) for n in (5, 10, 20, 30, 50, 100)}
    found |= {f"beta {b}": (documents, replace(rocchio, beta=b)) for b in (0.1, 0.2, 0.3, 0.5, 0.8, 1.2)}
    return {name: one for name, one in found.items() if name == "default" or one != _CENTRE}


@dataclass(frozen=True)
class Subject:
    """A collection with its first round: the lists by name."""

    name: str
    judgements: Judgements
    queries: dict[str, QueryVector]
    windows: Windows
    vectors: dict[str, SparseVector]
    index: ExactIndex
    lists: dict[str, Rankings]

    @classmethod
    def of(cls, name: str, collection: Collection, windows: Windows, table: QueryTable, lexical: Rankings) -> "Subject":
        top_k = IndexSpec.model_validate({}).document_top_k
        vectors = {document: document_vector(found, top_k) for document, found in windows.items()}
        queries = {query: table.encode(text) for query, text in collection.judged.items()}
        index = ExactIndex(vectors)
        sparse = {query: index.search(vector.by_id(), CANDIDATES) for query, vector in queries.items()}
        lists: dict[str, Rankings] = {"sparse": sparse, "lexical": lexical, "hybrid": fused(sparse, lexical)}
        return cls(name, collection.known_judgements(), queries, windows, vectors, index, lists)

    def second_round(
        self, choose_by: str, documents: int, rocchio: Rocchio, table: TableWeight, *, whole: bool = False
    ) -> Rankings:
        """The sparse lists after feedback; `whole`: of documents, not of the windows that match best."""
        found: dict[str, Ranking] = {}
        for query, vector in self.queries.items():
            by_id = vector.by_id()
            chosen = [one for one, _ in self.lists[choose_by].get(query, ())[:documents] if one in self.windows]
            liked = [self.vectors[one] if whole else self._best_window(one, by_id) for one in chosen]
            query_now = moved(Blend.of(vector), rocchio, table, MOST, liked=liked).vector
            found[query] = self.index.search(query_now.by_id(), CANDIDATES)
        return found

    def _best_window(self, document: str, query: Mapping[int, float]) -> SparseVector:
        return max(self.windows[document], key=lambda window: window.vector.dot(query)).vector


def fused(*lists: Rankings) -> dict[str, Ranking]:
    """Lists as hybrid search fuses them. Of three, the first two share the weight of the sparse list."""
    *sparse, lexical = lists
    weights = {f"{n}": DEFAULT_WEIGHTS["sparse"] / len(sparse) for n in range(len(sparse))}
    weights["lexical"] = DEFAULT_WEIGHTS["lexical"]
    return {
        query: fuse(
            {f"{n}": dict(one.get(query, ())) for n, one in enumerate(sparse)}
            | {"lexical": dict(lexical.get(query, ()))},
            weights,
        )
        for query in {**sparse[0], **lexical}
    }


def pseudo(subject: Subject, table: QueryTable) -> dict[str, Any]:
    """Figures of each setting and way, and what each costs and gains query by query at the default."""

    def quality(rankings: Rankings) -> dict[str, float]:
        mean = measure(subject.judgements, rankings).mean
        return {name: round(mean[name], 5) for name in ("ndcg@10", "recall@100")}

    def ways(second: Callable[[str], Rankings]) -> dict[str, Any]:
        rounds = {choose_by: second(choose_by) for choose_by in ("sparse", "hybrid", "lexical")}
        return {
            way: quality(fused(rounds[choose_by], subject.lists["lexical"]) if after else rounds[choose_by])
            for way, (choose_by, after) in WAYS.items()
        }

    documents, rocchio = _CENTRE
    alike: TableWeight = lambda piece: 1.0 if table.weight(piece) > 0 else 0.0  # noqa: E731
    found: dict[str, Any] = {"without": {name: quality(one) for name, one in subject.lists.items()}}
    for name, (count, tried) in settings_tried().items():
        found[name] = ways(lambda choose_by, n=count, r=tried: subject.second_round(choose_by, n, r, table.weight))  # type: ignore[misc]
    found["not weighed with the table"] = ways(lambda by: subject.second_round(by, documents, rocchio, alike))
    found["whole documents"] = ways(lambda by: subject.second_round(by, documents, rocchio, table.weight, whole=True))
    second = subject.second_round("hybrid", documents, rocchio, table.weight)
    both_rounds = fused(subject.lists["sparse"], second, subject.lists["lexical"])
    found["both rounds' lists fused"] = {"both": quality(both_rounds)}
    found["queries"] = _by_query(subject, fused(second, subject.lists["lexical"]))
    return found


def _by_query(subject: Subject, after: Rankings) -> dict[str, int]:
    """How many queries got better and worse by more than a hundredth of NDCG@10, hybrid without and with feedback."""
    one, other = (measure(subject.judgements, lists).by_query for lists in (subject.lists["hybrid"], after))
    changes = [other[query]["ndcg@10"] - one[query]["ndcg@10"] for query in one]
    return {
        "better": sum(change > 0.01 for change in changes),
        "worse": sum(change < -0.01 for change in changes),
        "all": len(changes),
    }


def explicit(subject: Subject, table: QueryTable) -> dict[str, Any]:
    """NDCG@10 of what was not shown yet, after judged documents of the first ten were fed back."""
    rows = {
        "the query again": Rocchio(beta=0, gamma=0),
        "like": Rocchio(gamma=0),
        "unlike": Rocchio(beta=0),
        "like and unlike": Rocchio(),
        "like and unlike, beta 1": Rocchio(beta=1.0),
        "like and unlike, gamma 0.5": Rocchio(gamma=0.5),
    }
    rankings: dict[str, dict[str, Ranking]] = {name: {} for name in (*rows, SUBTRACTED)}
    left: Judgements = {}
    for query, vector in subject.queries.items():
        grades = subject.judgements[query]
        first = [document for document, _ in subject.lists["sparse"][query][:10]]
        liked = [one for one in first if grades.get(one, 0) > 0][:3]
        unliked = [one for one in first if grades.get(one, 0) <= 0][:3]
        shown = {*liked, *unliked}
        rest = {one: grade for one, grade in grades.items() if one not in shown and grade > 0}
        if not rest or not liked:
            continue
        left[query] = rest
        good, bad = ([subject.vectors[one] for one in side] for side in (liked, unliked))
        found = {
            name: subject.index.search(_moved(vector, rocchio, table, good, bad), 3 * CANDIDATES)
            for name, rocchio in rows.items()
        }
        minus = share_of("", centroid(bad, table.weight), Rocchio().pieces, Rocchio().gamma * sum(vector.weights))
        away = dict(zip(subject.index.names, subject.index.scores(minus.weights).tolist(), strict=True))
        found[SUBTRACTED] = sorted(((one, s - away[one]) for one, s in found["like"]), key=lambda pair: -pair[1])
        for name, listed in found.items():
            rankings[name][query] = [(one, score) for one, score in listed if one not in shown][:CANDIDATES]
    figures = {name: round(measure(left, one).mean["ndcg@10"], 5) for name, one in rankings.items()}
    return {"queries": len(left), "ndcg@10": figures}


def _moved(
    query: QueryVector, rocchio: Rocchio, table: QueryTable, liked: list[SparseVector], unliked: list[SparseVector]
) -> dict[int, float]:
    return moved(Blend.of(query), rocchio, table.weight, MOST, liked=liked, unliked=unliked).vector.by_id()


def means(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean NDCG@10 over the collections of each kind, and over all."""
    sparse = [name for name in found if name.partition("/")[0] in SPARSE_JUDGEMENTS]
    groups = {"deep": [name for name in found if name not in sparse], "sparse": sparse, "all": list(found)}
    rows = next(iter(found.values()))
    return {
        group: {
            row: {
                way: round(sum(found[name][row][way]["ndcg@10"] for name in names) / len(names), 5) for way in rows[row]
            }
            for row in rows
            if row != "queries"
        }
        for group, names in groups.items()
        if names
    }


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """The figures of every collection and their means."""
    encoder = load_encoder(given.encoder, threads=given.threads)
    table = QueryTable.load(resolve(given.encoder))
    found: dict[str, Any] = {}
    named: dict[str, Any] = {}
    with node_settings() as settings, closing(SyncSearch(settings)) as search:
        version = opensearch_version(settings)
        for wanted in given.collections.split(","):
            name, _, every = wanted.partition("/")
            collection = sampled(open_collection(given.data / name), int(every or 1))
            windows = collection_windows(collection, encoder, given.cache)
            lexical = keyword_lists(search, settings, collection, CANDIDATES)
            subject = Subject.of(wanted, collection, windows, table, lexical)
            found[wanted] = pseudo(subject, table)
            if name not in SPARSE_JUDGEMENTS:
                named[wanted] = explicit(subject, table)
            print(wanted, found[wanted]["without"], found[wanted]["default"], named.get(wanted, ""), flush=True)
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "candidates": CANDIDATES,
        "ways": {way: {"choose_by": by, "mode": "hybrid" if after else "sparse"} for way, (by, after) in WAYS.items()},
        "mean_ndcg@10": means(found),
        "by_collection": found,
        "explicit": named,
    }


def main(given: list[str] | None = None) -> None:
    """The command."""
    run("feedback", arguments("feedback", __doc__), measured, given)


if __name__ == "__main__":
    main()
