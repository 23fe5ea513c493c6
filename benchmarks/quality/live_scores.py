"""How do the lists of several indexes go together? The questions of each collection asked of all of them at once.

    python -m benchmarks.across DATA --json benchmarks/results/across.json

Each collection of DATA is an index of its own. Their keyword lists come from a real node, with the statistics of words
of each index, or of all together; sparse lists are searched exactly in memory, all by one encoder, or some by another.
What is reported is the mean over collections of NDCG@10, in which an answer from another collection is wrong.
See docs/decisions/0166.

Are the live figures those of the vectors? `sparsewell eval`'s own steps against exact search in memory.

    python -m benchmarks.live_against_memory DATA --json benchmarks/results/live-against-memory.json

Each collection of DATA goes through a live API, a real queue and a worker; the same documents are encoded a second
time in this process and searched exactly. Reported are both figures, and how many scores of all lists are equal.
Fails when NDCG@10, MRR@10 or Recall@100 differ by more than .002.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.collections import encode_collection
from benchmarks.measuring import choose, make_parser, run_benchmark
from benchmarks.service import (
    create_index,
    journal_documents,
    open_node,
    open_service,
    read_opensearch_version,
    run_process,
)
from cli.relevance.collection import JudgedCollection, open_collection
from cli.relevance.live import MODES, LiveIndex, ask_queries, ingest_collection
from cli.relevance.metrics import MEASURES, ExactIndex, RankingQuality, Rankings, measure_rankings, rank_queries
from cli.relevance.metrics import measure_rankings as measured
from models.registry import load_encoder
from query_api.schemas.search_request import FusionWeights
from services.documents.document import Document
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.errors import InvalidInput
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import refresh_call
from services.opensearch.queries import SearchPlan, build_search_body, lexical_query, msearch_call
from services.query.fusion import DEFAULT_WEIGHTS, fuse_lists, min_max
from services.settings import Settings

HIT_COUNT = 100
TOLERANCE = 0.002


def count_equal_scores(live: Rankings, exact: Rankings) -> dict[str, Any]:
    """Scores compared rank by rank as float32, which they are in OpenSearch; so the order of ties does not count."""
    pairs = [
        (float(np.float32(a)), float(np.float32(b)))
        for query, ranking in exact.items()
        for (_, a), (_, b) in zip(live.get(query, ()), ranking, strict=False)
    ]
    worst = max((abs(a - b) / max(a, b) for a, b in pairs), default=0.0)
    return {
        "compared": len(pairs),
        "equal": sum(a == b for a, b in pairs),
        "largest_relative_difference": worst,
        "lists_of_another_length": sum(len(live.get(query, ())) != len(ranking) for query, ranking in exact.items()),
    }


def compare_figures(live: RankingQuality, exact: RankingQuality) -> dict[str, dict[str, float]]:
    """Both figures of each measure, and their difference."""
    return {
        name: {
            "live": round(live.mean[name], 5),
            "in_memory": round(exact.mean[name], 5),
            "difference": round(live.mean[name] - exact.mean[name], 6),
        }
        for name in MEASURES
    }


def compare_collection(
    collection: JudgedCollection, client: httpx.Client, encoder_name: str, cache: Path | None
) -> dict[str, Any]:
    """Loads a collection, asks it, and does the same in memory."""
    encoder = load_encoder(encoder_name)
    table = QueryTable.load(resolve_model_directory(encoder_name))
    live_index = LiveIndex(client, collection.name)
    live_index.create({})
    ingested = ingest_collection(live_index, collection, lambda stage, done, total: None)
    live = ask_queries(live_index, collection, MODES, HIT_COUNT, None, lambda stage, done, total: None)
    index = ExactIndex(encode_collection(collection, encoder, cache))
    queries = {query: table.encode(text, 1000).by_id() for query, text in collection.judged.items()}
    sparse = rank_queries(index, queries, HIT_COUNT)
    lexical = live["lexical"].answers.rankings
    weights = FusionWeights.model_validate({}).model_dump()
    fused = {
        q: fuse_lists({"sparse": dict(sparse[q]), "lexical": dict(lexical[q])}, weights)[:HIT_COUNT] for q in queries
    }
    judgements = collection.known_judgements()
    found: dict[str, Any] = {
        "documents": len(ingested.ids),
        "queries": len(queries),
        "states": ingested.states,
        "documents_a_second": round(ingested.documents_a_second, 1),
        "lexical": {name: round(value, 5) for name, value in live["lexical"].quality.mean.items()},
    }
    for mode, exact in (("sparse", sparse), ("hybrid", fused)):
        found[mode] = {
            **compare_figures(live[mode].quality, measure_rankings(judgements, exact)),
            "scores": count_equal_scores(live[mode].answers.rankings, exact),
        }
    return found


def compare_with_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every collection on one service."""
    collections: dict[str, Any] = {}
    with open_service() as base:
        settings: Settings = base.model_copy(update={"encoder": arguments.encoder})
        address = f"http://{settings.api_host}:{settings.api_port}"
        with run_process(settings, "api"), run_process(settings, "worker"), httpx.Client(base_url=address) as client:
            version = read_opensearch_version(settings)
            for name in arguments.collections.split(","):
                collection = open_collection(arguments.data / name)
                collections[name] = compare_collection(collection, client, arguments.encoder, arguments.cache)
                print(name, collections[name])
    if worst := _list_deviations(collections):
        raise InvalidInput("figures_differ", f"Live and in-memory figures differ by more than {TOLERANCE}: {worst}")
    return {"opensearch": version, "tolerance": TOLERANCE, "collections": collections}


def _list_deviations(collections: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {mode} {measure_name} {found[mode][measure_name]}"
        for name, found in collections.items()
        for mode in ("sparse", "hybrid")
        for measure_name in MEASURES
        if abs(found[mode][measure_name]["difference"]) > TOLERANCE
    ]


def live_against_memory(given: list[str] | None = None) -> None:
    """Reads the arguments, prints the comparison, writes the file."""
    parser = make_parser("live_against_memory", __doc__)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default="cranfield,cosqa")
    parser.add_argument("--encoder", default="bootstrap-minilm-l6")
    parser.add_argument("--cache", type=Path, help="where vectors are kept for the next run")
    run_benchmark("live_against_memory", parser, compare_with_memory)


LIST_DEPTH = 100
# The scale of a query table is no matter to its own encoder; between two it is.
WEIGHT_FACTOR = 3
_TIMEOUT_SECONDS = 120.0
_MAX_PIECES = 1000
_QUERIES_PER_REQUEST = 25

DocumentScores = dict[str, float]
# by query, and within it by index
IndexLists = dict[str, dict[str, DocumentScores]]
# the lists of one query as one
MergeLists = Callable[[Mapping[str, DocumentScores]], DocumentScores]


def merge_raw(lists: Mapping[str, DocumentScores]) -> DocumentScores:
    """Scores are compared whatever index they are of."""
    return _best_scores({document: score for scores in lists.values() for document, score in scores.items()})


def merge_min_max(lists: Mapping[str, DocumentScores]) -> DocumentScores:
    """The best of each index is 1, its last 0."""
    return _best_scores({document: score for scores in lists.values() for document, score in min_max(scores).items()})


def merge_by_query_weight(lists: Mapping[str, DocumentScores], weights: Mapping[str, float]) -> DocumentScores:
    """Scores over the summed weights of the query: the mean weight that a document gives to the query's pieces."""
    return _best_scores({one: score / weights[name] for name, scores in lists.items() for one, score in scores.items()})


def _best_scores(scores: DocumentScores) -> DocumentScores:
    return dict(sorted(scores.items(), key=lambda one: (-one[1], one[0]))[:LIST_DEPTH])


def search_keyword_lists(settings: Settings, collections: Sequence[JudgedCollection]) -> tuple[IndexLists, IndexLists]:
    """With the statistics of each index, and with those of all; the ids of documents begin with their collection's."""
    apart: IndexLists = {}
    pooled: IndexLists = {}
    with closing(SyncSearchClient(settings)) as search:
        names = {}
        for collection in collections:
            generation = create_index(search, settings, collection.name.replace("_", "-"))
            documents = [
                Document(f"{collection.name}/{d.id}", d.text, d.title) for d in collection.documents() if d.text
            ]
            journal_documents(search, settings, generation, documents)
            search.send(refresh_call(generation.physical))
            names[generation.physical] = collection.name
        every = ",".join(names)
        asked = list(_all_questions(collections).items())
        for start in range(0, len(asked), _QUERIES_PER_REQUEST):
            some = asked[start : start + _QUERIES_PER_REQUEST]
            plans = []
            for _, text in some:
                search_body = build_search_body(lexical_query(text), LIST_DEPTH, False, _TIMEOUT_SECONDS)
                plans += [SearchPlan(name, search_body) for name in names] + [
                    SearchPlan(every, search_body, pooled=True)
                ]
            answers = iter(search.send(msearch_call(plans, _TIMEOUT_SECONDS))["responses"])
            for query, _ in some:
                apart[query] = {name: _read_scores(next(answers)) for name in names.values()}
                pooled[query] = {"all": _read_scores(next(answers))}
    return apart, pooled


def _read_scores(answer: Mapping[str, Any]) -> DocumentScores:
    return {hit["_id"]: float(hit["_score"]) for hit in answer["hits"]["hits"]}


def search_sparse_lists(
    collections: Sequence[JudgedCollection], encoder_name: str, cache: Path | None
) -> tuple[IndexLists, dict[str, float]]:
    """Every collection's best documents for every question, by one encoder, and the summed weights of each question."""
    encoder, table = load_encoder(encoder_name), QueryTable.load(resolve_model_directory(encoder_name))
    indexes = {one.name: ExactIndex(encode_collection(one, encoder, cache)) for one in collections}
    found: IndexLists = {}
    weights = {}
    for query, text in _all_questions(collections).items():
        vector = table.encode(text, _MAX_PIECES).by_id()
        weights[query] = sum(vector.values())
        found[query] = {
            name: {f"{name}/{document}": score for document, score in index.search(vector, LIST_DEPTH)}
            for name, index in indexes.items()
        }
    return found, weights


def _all_questions(collections: Sequence[JudgedCollection]) -> dict[str, str]:
    return {f"{one.name}/{query}": text for one in collections for query, text in one.judged.items()}


def ndcg_by_collection(
    collections: Sequence[JudgedCollection], rankings: Mapping[str, DocumentScores]
) -> dict[str, float]:
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


def _fuse_lists(
    sparse: Mapping[str, DocumentScores], lexical: Mapping[str, DocumentScores]
) -> dict[str, DocumentScores]:
    return {
        query: dict(fuse_lists({"sparse": sparse[query], "lexical": lexical[query]}, DEFAULT_WEIGHTS)[:LIST_DEPTH])
        for query in sparse
    }


def _merge_all(lists: IndexLists, together: MergeLists) -> dict[str, DocumentScores]:
    return {query: together(one) for query, one in lists.items()}


def measure_one_encoder(
    collections: Sequence[JudgedCollection], apart: IndexLists, pooled: IndexLists, sparse: IndexLists
) -> dict[str, Any]:
    """Lists as one index would have them, and those of each index put together without knowing of the others."""
    one_index, words = _merge_all(sparse, merge_raw), _merge_all(pooled, merge_raw)
    ways = {
        "keywords, statistics of all": words,
        "keywords, statistics of each, as they are": _merge_all(apart, merge_raw),
        "keywords, statistics of each, scaled each": _merge_all(apart, merge_min_max),
        "sparse, as they are": one_index,
        "sparse, scaled each": _merge_all(sparse, merge_min_max),
        "hybrid, sparse as they are, statistics of all": _fuse_lists(one_index, words),
        "hybrid, both scaled each": _fuse_lists(_merge_all(sparse, merge_min_max), _merge_all(apart, merge_min_max)),
    }
    return {name: ndcg_by_collection(collections, rankings) for name, rankings in ways.items()}


def measure_two_encoders(
    collections: Sequence[JudgedCollection],
    pooled: IndexLists,
    first: tuple[IndexLists, dict[str, float]],
    second: tuple[IndexLists, dict[str, float]],
) -> dict[str, Any]:
    """Mean NDCG@10 over every way to give two of the collections to the second encoder."""
    words = _merge_all(pooled, merge_raw)
    sums: dict[str, list[float]] = {}
    for of_second in combinations([one.name for one in collections], 2):
        # an encoder's lists are one: within it scores compare
        lists: IndexLists = {
            query: {
                "first": merge_raw({name: some for name, some in by_name.items() if name not in of_second}),
                "second": merge_raw({name: second[0][query][name] for name in of_second}),
            }
            for query, by_name in first[0].items()
        }
        weighed = {
            query: merge_by_query_weight(some, {"first": first[1][query] or 1.0, "second": second[1][query] or 1.0})
            for query, some in lists.items()
        }
        heavier: IndexLists = {
            query: some | {"second": {one: WEIGHT_FACTOR * score for one, score in some["second"].items()}}
            for query, some in lists.items()
        }
        ways = {
            "as they are": _merge_all(lists, merge_raw),
            f"as they are, the second's query table {WEIGHT_FACTOR} times as heavy": _merge_all(heavier, merge_raw),
            "scaled each": _merge_all(lists, merge_min_max),
            "by the query's weight": weighed,
        }
        for name, ranked in ways.items():
            sums.setdefault(f"sparse, {name}", []).append(ndcg_by_collection(collections, ranked)["mean"])
            sums.setdefault(f"hybrid, {name}", []).append(
                ndcg_by_collection(collections, _fuse_lists(ranked, words))["mean"]
            )
    return {name: round(sum(means) / len(means), 4) for name, means in sums.items()}


def measure_several_indexes(given: argparse.Namespace) -> dict[str, Any]:
    """The table."""
    collections = [open_collection(given.data / name) for name in given.collections.split(",")]
    with open_node() as settings:
        apart, pooled = search_keyword_lists(settings, collections)
        version = read_opensearch_version(settings)
    first = search_sparse_lists(collections, given.encoder, given.cache)
    second = search_sparse_lists(collections, given.second, given.cache)
    figures = {
        "one encoder": measure_one_encoder(collections, apart, pooled, first[0]),
        "two encoders": measure_two_encoders(collections, pooled, first, second),
        "documents": {one.name: sum(1 for _ in one.documents()) for one in collections},
        "queries": {one.name: len(one.judged) for one in collections},
    }
    for name, row in figures["one encoder"].items():
        print(f"{name:>50}: {row['mean']:.4f}")
    for name, mean in figures["two encoders"].items():
        print(f"{'two encoders, ' + name:>50}: {mean:.4f}")
    return {"opensearch": version, "depth": LIST_DEPTH, **figures}


def several_indexes(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = make_parser("across", __doc__)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default="adi,cisi,cosqa,cranfield,medline")
    parser.add_argument("--encoder", default="bootstrap-minilm-l6")
    parser.add_argument("--second", default="standin", help="encoder of half of the indexes")
    parser.add_argument("--cache", type=Path, help="where vectors are kept for the next run")
    run_benchmark("across", parser, measure_several_indexes, arguments)


BENCHMARKS = {"live_against_memory": live_against_memory, "several_indexes": several_indexes}

if __name__ == "__main__":
    choose(BENCHMARKS)
