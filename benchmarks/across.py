"""How do the lists of several indexes go together? The questions of each collection asked of all of them at once.

    python -m benchmarks.across DATA --json benchmarks/results/across.json

Each collection of DATA is an index of its own. Their keyword lists come from a real node, with the statistics of words
of each index, or of all together; sparse lists are searched exactly in memory, all by one encoder, or some by another.
What is reported is the mean over collections of NDCG@10, in which an answer from another collection is wrong.
See docs/decisions/0166.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.collection_vectors import collection_vectors
from benchmarks.filled_index import create, journal
from benchmarks.record import command_line, run
from benchmarks.service import node_settings, opensearch_version
from cli.relevance.collection import Collection, open_collection
from cli.relevance.exact import ExactIndex
from cli.relevance.metrics import measure as measured
from models.registry import load_encoder
from services.documents import Document
from services.fusion import DEFAULT_WEIGHTS, fuse, min_max
from services.manifest import resolve
from services.opensearch.client import SyncSearch
from services.opensearch.generations import refresh_call
from services.opensearch.queries import Plan, body, lexical_query, msearch_call
from services.query_table import QueryTable
from services.settings import Settings

DEPTH = 100
# The scale of a query table is no matter to its own encoder; between two it is.
HEAVIER = 3
_SECONDS = 120.0
_PIECES = 1000
_QUERIES_A_REQUEST = 25

Scores = dict[str, float]
# by query, and within it by index
Lists = dict[str, dict[str, Scores]]
# the lists of one query as one
Together = Callable[[Mapping[str, Scores]], Scores]


def as_they_are(lists: Mapping[str, Scores]) -> Scores:
    """Scores are compared whatever index they are of."""
    return _best({document: score for scores in lists.values() for document, score in scores.items()})


def scaled_each(lists: Mapping[str, Scores]) -> Scores:
    """The best of each index is 1, its last 0."""
    return _best({document: score for scores in lists.values() for document, score in min_max(scores).items()})


def by_the_query(lists: Mapping[str, Scores], weights: Mapping[str, float]) -> Scores:
    """Scores over the summed weights of the query: the mean weight that a document gives to the query's pieces."""
    return _best({one: score / weights[name] for name, scores in lists.items() for one, score in scores.items()})


def _best(scores: Scores) -> Scores:
    return dict(sorted(scores.items(), key=lambda one: (-one[1], one[0]))[:DEPTH])


def keyword_lists(settings: Settings, collections: Sequence[Collection]) -> tuple[Lists, Lists]:
    """With the statistics of each index, and with those of all; the ids of documents begin with their collection's."""
    apart: Lists = {}
    pooled: Lists = {}
    with closing(SyncSearch(settings)) as search:
        names = {}
        for collection in collections:
            generation = create(search, settings, collection.name.replace("_", "-"))
            documents = [
                Document(f"{collection.name}/{d.id}", d.text, d.title) for d in collection.documents() if d.text
            ]
            journal(search, settings, generation, documents)
            search.send(refresh_call(generation.physical))
            names[generation.physical] = collection.name
        every = ",".join(names)
        asked = list(_questions(collections).items())
        for start in range(0, len(asked), _QUERIES_A_REQUEST):
            some = asked[start : start + _QUERIES_A_REQUEST]
            plans = []
            for _, text in some:
                search_body = body(lexical_query(text), DEPTH, False, _SECONDS)
                plans += [Plan(name, search_body) for name in names] + [Plan(every, search_body, pooled=True)]
            answers = iter(search.send(msearch_call(plans, _SECONDS))["responses"])
            for query, _ in some:
                apart[query] = {name: _scores(next(answers)) for name in names.values()}
                pooled[query] = {"all": _scores(next(answers))}
    return apart, pooled


def _scores(answer: Mapping[str, Any]) -> Scores:
    return {hit["_id"]: float(hit["_score"]) for hit in answer["hits"]["hits"]}


def sparse_lists(
    collections: Sequence[Collection], encoder_name: str, cache: Path | None
) -> tuple[Lists, dict[str, float]]:
    """Every collection's best documents for every question, by one encoder, and the summed weights of each question."""
    encoder, table = load_encoder(encoder_name), QueryTable.load(resolve(encoder_name))
    indexes = {one.name: ExactIndex(collection_vectors(one, encoder, cache)) for one in collections}
    found: Lists = {}
    weights = {}
    for query, text in _questions(collections).items():
        vector = table.encode(text, _PIECES).by_id()
        weights[query] = sum(vector.values())
        found[query] = {
            name: {f"{name}/{document}": score for document, score in index.search(vector, DEPTH)}
            for name, index in indexes.items()
        }
    return found, weights


def _questions(collections: Sequence[Collection]) -> dict[str, str]:
    return {f"{one.name}/{query}": text for one in collections for query, text in one.judged.items()}


def quality(collections: Sequence[Collection], rankings: Mapping[str, Scores]) -> dict[str, float]:
    """NDCG@10 by collection, and their mean."""
    found = {}
    for one in collections:
        judged = {
            f"{one.name}/{query}": {f"{one.name}/{document}": grade for document, grade in grades.items()}
            for query, grades in one.known_judgements().items()
        }
        ranked = {query: list(rankings[query].items()) for query in judged if query in rankings}
        found[one.name] = round(measured(judged, ranked).mean["ndcg@10"], 4)
    return found | {"mean": round(sum(found.values()) / len(found), 4)}


def _fused(sparse: Mapping[str, Scores], lexical: Mapping[str, Scores]) -> dict[str, Scores]:
    return {
        query: dict(fuse({"sparse": sparse[query], "lexical": lexical[query]}, DEFAULT_WEIGHTS)[:DEPTH])
        for query in sparse
    }


def _all(lists: Lists, together: Together) -> dict[str, Scores]:
    return {query: together(one) for query, one in lists.items()}


def one_encoder(collections: Sequence[Collection], apart: Lists, pooled: Lists, sparse: Lists) -> dict[str, Any]:
    """Lists as one index would have them, and those of each index put together without knowing of the others."""
    one_index, words = _all(sparse, as_they_are), _all(pooled, as_they_are)
    ways = {
        "keywords, statistics of all": words,
        "keywords, statistics of each, as they are": _all(apart, as_they_are),
        "keywords, statistics of each, scaled each": _all(apart, scaled_each),
        "sparse, as they are": one_index,
        "sparse, scaled each": _all(sparse, scaled_each),
        "hybrid, sparse as they are, statistics of all": _fused(one_index, words),
        "hybrid, both scaled each": _fused(_all(sparse, scaled_each), _all(apart, scaled_each)),
    }
    return {name: quality(collections, rankings) for name, rankings in ways.items()}


def two_encoders(
    collections: Sequence[Collection],
    pooled: Lists,
    first: tuple[Lists, dict[str, float]],
    second: tuple[Lists, dict[str, float]],
) -> dict[str, Any]:
    """Mean NDCG@10 over every way to give two of the collections to the second encoder."""
    words = _all(pooled, as_they_are)
    sums: dict[str, list[float]] = {}
    for of_second in combinations([one.name for one in collections], 2):
        # an encoder's lists are one: within it scores compare
        lists: Lists = {
            query: {
                "first": as_they_are({name: some for name, some in by_name.items() if name not in of_second}),
                "second": as_they_are({name: second[0][query][name] for name in of_second}),
            }
            for query, by_name in first[0].items()
        }
        weighed = {
            query: by_the_query(some, {"first": first[1][query] or 1.0, "second": second[1][query] or 1.0})
            for query, some in lists.items()
        }
        heavier: Lists = {
            query: some | {"second": {one: HEAVIER * score for one, score in some["second"].items()}}
            for query, some in lists.items()
        }
        ways = {
            "as they are": _all(lists, as_they_are),
            f"as they are, the second's query table {HEAVIER} times as heavy": _all(heavier, as_they_are),
            "scaled each": _all(lists, scaled_each),
            "by the query's weight": weighed,
        }
        for name, ranked in ways.items():
            sums.setdefault(f"sparse, {name}", []).append(quality(collections, ranked)["mean"])
            sums.setdefault(f"hybrid, {name}", []).append(quality(collections, _fused(ranked, words))["mean"])
    return {name: round(sum(means) / len(means), 4) for name, means in sums.items()}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The table."""
    collections = [open_collection(given.data / name) for name in given.collections.split(",")]
    with node_settings() as settings:
        apart, pooled = keyword_lists(settings, collections)
        version = opensearch_version(settings)
    first = sparse_lists(collections, given.encoder, given.cache)
    second = sparse_lists(collections, given.second, given.cache)
    figures = {
        "one encoder": one_encoder(collections, apart, pooled, first[0]),
        "two encoders": two_encoders(collections, pooled, first, second),
        "documents": {one.name: sum(1 for _ in one.documents()) for one in collections},
        "queries": {one.name: len(one.judged) for one in collections},
    }
    for name, row in figures["one encoder"].items():
        print(f"{name:>50}: {row['mean']:.4f}")
    for name, mean in figures["two encoders"].items():
        print(f"{'two encoders, ' + name:>50}: {mean:.4f}")
    return {"opensearch": version, "depth": DEPTH, **figures}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("across", __doc__)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default="adi,cisi,cosqa,cranfield,medline")
    parser.add_argument("--encoder", default="bootstrap-minilm-l6")
    parser.add_argument("--second", default="standin", help="encoder of half of the indexes")
    parser.add_argument("--cache", type=Path, help="where vectors are kept for the next run")
    run("across", parser, measure, arguments)


if __name__ == "__main__":
    main()
