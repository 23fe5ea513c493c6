"""Comparability of scores: of a live service and in memory, and of several indexes.

    python -m benchmarks live_against_memory DATA --json benchmarks/results/live-against-memory.json
    python -m benchmarks several_indexes DATA --json benchmarks/results/across.json

`live_against_memory`: each collection of DATA goes through a live API, a real queue and a worker, with the steps of
`sparsewell eval`; the same documents are encoded in this process and searched exactly. The benchmark counts equal
scores, and fails when NDCG@10, MRR@10 or Recall@100 differ by more than .002.

`several_indexes`: each collection is an index, and every query searches all of them. Lexical lists come from a real
node, with the word statistics of each index or of all; sparse lists are exact, by one encoder or by two. An answer from
another collection is wrong; figures are means over collections (docs/decisions/0166).
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
from benchmarks.measuring import make_parser, run_benchmark
from benchmarks.service import (
    create_index,
    journal_documents,
    open_node,
    open_service,
    read_opensearch_version,
    run_process,
)
from cli.relevance.exact_search import ExactIndex, rank_queries
from cli.relevance.live import LiveIndex, ask_queries, ingest_collection
from cli.relevance.metrics import MEASURES, RankingQuality, Rankings, measure_rankings
from cli.relevance.search_options import MODES
from models.judged_collection import JudgedCollection, open_collection
from models.registry import load_encoder
from query_api.schemas.search_request import FusionWeights
from services.documents.document import Document
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.errors import InvalidInput
from services.opensearch.analysis import blank_stop_words
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import refresh_call
from services.opensearch.queries import SearchPlan, build_search_body, lexical_query, msearch_call
from services.query.fusion import DEFAULT_WEIGHTS, fuse_lists, min_max
from services.settings import Settings

HIT_COUNT = 100
TOLERANCE = 0.002
LIST_DEPTH = 100
# The scale of a query table matters only between two encoders.
WEIGHT_FACTOR = 3
_TIMEOUT_SECONDS = 120.0
_MAX_PIECES = 1000
_QUERIES_PER_REQUEST = 25
DocumentScores = dict[str, float]
# By query, and within it by index.
IndexLists = dict[str, dict[str, DocumentScores]]
# Merges the lists of one query.
MergeLists = Callable[[Mapping[str, DocumentScores]], DocumentScores]


def live_against_memory(argv: list[str] | None = None) -> None:
    """Compare the figures of a live service with exact search in memory."""
    parser = make_parser("live_against_memory", live_against_memory.__doc__)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default="cranfield,cosqa")
    parser.add_argument("--encoder", default="projected-minilm-l6")
    parser.add_argument("--cache", type=Path, help="keep the vectors there")
    run_benchmark("live_against_memory", parser, compare_with_memory, argv)


def compare_with_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare every collection on one service. Raises InvalidInput (`figures_differ`)."""
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
        f"{name} {mode} {measure_name} {results[mode][measure_name]}"
        for name, results in collections.items()
        for mode in ("sparse", "hybrid")
        for measure_name in MEASURES
        if abs(results[mode][measure_name]["difference"]) > TOLERANCE
    ]


def compare_collection(
    collection: JudgedCollection, client: httpx.Client, encoder_name: str, cache: Path | None
) -> dict[str, Any]:
    """Load a collection, search it live, and search it in memory."""
    encoder = load_encoder(encoder_name)
    table = QueryTable.load(resolve_model_directory(encoder_name))
    live_index = LiveIndex(client, collection.name)
    live_index.create({})
    ingested = ingest_collection(live_index, collection, lambda stage, done, total: None)
    live = ask_queries(
        live_index, collection, {mode: {"mode": mode} for mode in MODES}, HIT_COUNT, lambda stage, done, total: None
    )
    index = ExactIndex(encode_collection(collection, encoder, cache))
    queries = {query: table.encode(text, 1000).by_id() for query, text in collection.judged.items()}
    sparse = rank_queries(index, queries, HIT_COUNT)
    lexical = live["lexical"].answers.rankings
    weights = FusionWeights.model_validate({}).model_dump()
    fused = {
        q: fuse_lists({"sparse": dict(sparse[q]), "lexical": dict(lexical[q])}, weights)[:HIT_COUNT] for q in queries
    }
    judgements = collection.known_judgements()
    results: dict[str, Any] = {
        "documents": len(ingested.ids),
        "queries": len(queries),
        "states": ingested.states,
        "documents_a_second": round(ingested.documents_a_second, 1),
        "lexical": live["lexical"].quality.rounded_means(),
    }
    for mode, exact in (("sparse", sparse), ("hybrid", fused)):
        results[mode] = {
            **compare_figures(live[mode].quality, measure_rankings(judgements, exact)),
            "scores": count_equal_scores(live[mode].answers.rankings, exact),
        }
    return results


def compare_figures(live: RankingQuality, exact: RankingQuality) -> dict[str, dict[str, float]]:
    """Return both figures of each measure, and their difference."""
    return {
        name: {
            "live": round(live.mean[name], 5),
            "in_memory": round(exact.mean[name], 5),
            "difference": round(live.mean[name] - exact.mean[name], 6),
        }
        for name in MEASURES
    }


def count_equal_scores(live: Rankings, exact: Rankings) -> dict[str, Any]:
    """Compare scores rank by rank as float32, OpenSearch's precision, so the order of ties does not count."""
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


def several_indexes(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 of one search over several indexes, by way to merge their lists."""
    parser = make_parser("several_indexes", several_indexes.__doc__)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default="adi,cisi,cosqa,cranfield,medline")
    parser.add_argument("--encoder", default="projected-minilm-l6")
    parser.add_argument("--second", default="standin", help="encoder of some of the indexes")
    parser.add_argument("--cache", type=Path, help="keep the vectors there")
    run_benchmark("several_indexes", parser, measure_several_indexes, argv)


def measure_several_indexes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures with one encoder and with two."""
    collections = [open_collection(arguments.data / name) for name in arguments.collections.split(",")]
    with open_node() as settings:
        apart, pooled = search_lexical_lists(settings, collections)
        version = read_opensearch_version(settings)
    first = search_sparse_lists(collections, arguments.encoder, arguments.cache)
    second = search_sparse_lists(collections, arguments.second, arguments.cache)
    figures = {
        "one encoder": measure_one_encoder(collections, apart, pooled, first[0]),
        "two encoders": measure_two_encoders(collections, pooled, first, second),
        "documents": {collection.name: sum(1 for _ in collection.documents()) for collection in collections},
        "queries": {collection.name: len(collection.judged) for collection in collections},
    }
    for name, row in figures["one encoder"].items():
        print(f"{name:>50}: {row['mean']:.4f}")
    for name, mean in figures["two encoders"].items():
        print(f"{'two encoders, ' + name:>50}: {mean:.4f}")
    return {"opensearch": version, "depth": LIST_DEPTH, **figures}


def search_lexical_lists(settings: Settings, collections: Sequence[JudgedCollection]) -> tuple[IndexLists, IndexLists]:
    """Return the lists with the statistics of each index and of all; document ids start with the collection."""
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
        all_indexes = ",".join(names)
        questions = list(_all_questions(collections).items())
        for start in range(0, len(questions), _QUERIES_PER_REQUEST):
            batch = questions[start : start + _QUERIES_PER_REQUEST]
            plans = []
            for _, text in batch:
                search_body = build_search_body(
                    lexical_query(blank_stop_words(text)), LIST_DEPTH, False, _TIMEOUT_SECONDS
                )
                plans += [SearchPlan(name, search_body) for name in names] + [
                    SearchPlan(all_indexes, search_body, pooled=True)
                ]
            answers = iter(search.send(msearch_call(plans, _TIMEOUT_SECONDS))["responses"])
            for query, _ in batch:
                apart[query] = {name: _read_scores(next(answers)) for name in names.values()}
                pooled[query] = {"all": _read_scores(next(answers))}
    return apart, pooled


def _read_scores(answer: Mapping[str, Any]) -> DocumentScores:
    return {hit["_id"]: float(hit["_score"]) for hit in answer["hits"]["hits"]}


def search_sparse_lists(
    collections: Sequence[JudgedCollection], encoder_name: str, cache: Path | None
) -> tuple[IndexLists, dict[str, float]]:
    """Return the best documents of each collection for each query, and each query's summed weights."""
    encoder, table = load_encoder(encoder_name), QueryTable.load(resolve_model_directory(encoder_name))
    indexes = {c.name: ExactIndex(encode_collection(c, encoder, cache)) for c in collections}
    results: IndexLists = {}
    weights = {}
    for query, text in _all_questions(collections).items():
        vector = table.encode(text, _MAX_PIECES).by_id()
        weights[query] = sum(vector.values())
        results[query] = {
            name: {f"{name}/{document}": score for document, score in index.search(vector, LIST_DEPTH)}
            for name, index in indexes.items()
        }
    return results, weights


def _all_questions(collections: Sequence[JudgedCollection]) -> dict[str, str]:
    return {f"{c.name}/{query}": text for c in collections for query, text in c.judged.items()}


def measure_one_encoder(
    collections: Sequence[JudgedCollection], apart: IndexLists, pooled: IndexLists, sparse: IndexLists
) -> dict[str, Any]:
    """Return figures of lists as one index would have them, and of merged lists of each index."""
    one_index, lexical = _merge_all(sparse, merge_raw), _merge_all(pooled, merge_raw)
    ways = {
        "lexical, global statistics": lexical,
        "lexical, local statistics, raw scores": _merge_all(apart, merge_raw),
        "lexical, local statistics, min-max scores": _merge_all(apart, merge_min_max),
        "sparse, raw scores": one_index,
        "sparse, min-max scores": _merge_all(sparse, merge_min_max),
        "hybrid, raw sparse scores, global lexical statistics": _fuse_lists(one_index, lexical),
        "hybrid, min-max scores": _fuse_lists(_merge_all(sparse, merge_min_max), _merge_all(apart, merge_min_max)),
    }
    return {name: ndcg_by_collection(collections, rankings) for name, rankings in ways.items()}


def measure_two_encoders(
    collections: Sequence[JudgedCollection],
    pooled: IndexLists,
    first: tuple[IndexLists, dict[str, float]],
    second: tuple[IndexLists, dict[str, float]],
) -> dict[str, Any]:
    """Return mean NDCG@10 over all ways to give two collections to the second encoder."""
    lexical = _merge_all(pooled, merge_raw)
    sums: dict[str, list[float]] = {}
    for of_second in combinations([collection.name for collection in collections], 2):
        # Scores of one encoder compare, so its lists are merged by raw scores.
        lists: IndexLists = {
            query: {
                "first": merge_raw({name: ranking for name, ranking in by_name.items() if name not in of_second}),
                "second": merge_raw({name: second[0][query][name] for name in of_second}),
            }
            for query, by_name in first[0].items()
        }
        weighed = {
            query: merge_by_query_weight(rankings, {"first": first[1][query] or 1.0, "second": second[1][query] or 1.0})
            for query, rankings in lists.items()
        }
        heavier: IndexLists = {
            query: rankings
            | {"second": {document: WEIGHT_FACTOR * score for document, score in rankings["second"].items()}}
            for query, rankings in lists.items()
        }
        ways = {
            "raw scores": _merge_all(lists, merge_raw),
            f"raw scores, second query table {WEIGHT_FACTOR} times as heavy": _merge_all(heavier, merge_raw),
            "min-max scores": _merge_all(lists, merge_min_max),
            "scores over the query's weight": weighed,
        }
        for name, ranked in ways.items():
            sums.setdefault(f"sparse, {name}", []).append(ndcg_by_collection(collections, ranked)["mean"])
            sums.setdefault(f"hybrid, {name}", []).append(
                ndcg_by_collection(collections, _fuse_lists(ranked, lexical))["mean"]
            )
    return {name: round(sum(means) / len(means), 4) for name, means in sums.items()}


def _merge_all(lists: IndexLists, merge: MergeLists) -> dict[str, DocumentScores]:
    return {query: merge(parts) for query, parts in lists.items()}


def merge_raw(lists: Mapping[str, DocumentScores]) -> DocumentScores:
    """Merge lists by raw scores."""
    return _best_scores({document: score for scores in lists.values() for document, score in scores.items()})


def merge_min_max(lists: Mapping[str, DocumentScores]) -> DocumentScores:
    """Merge lists after scaling each: its best score is 1, its last 0."""
    return _best_scores({document: score for scores in lists.values() for document, score in min_max(scores).items()})


def merge_by_query_weight(lists: Mapping[str, DocumentScores], weights: Mapping[str, float]) -> DocumentScores:
    """Merge lists by score over the query's summed weights, the mean weight that a document gives its pieces."""
    return _best_scores(
        {document: score / weights[name] for name, scores in lists.items() for document, score in scores.items()}
    )


def _best_scores(scores: DocumentScores) -> DocumentScores:
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:LIST_DEPTH])


def _fuse_lists(
    sparse: Mapping[str, DocumentScores], lexical: Mapping[str, DocumentScores]
) -> dict[str, DocumentScores]:
    return {
        query: dict(fuse_lists({"sparse": sparse[query], "lexical": lexical[query]}, DEFAULT_WEIGHTS)[:LIST_DEPTH])
        for query in sparse
    }


def ndcg_by_collection(
    collections: Sequence[JudgedCollection], rankings: Mapping[str, DocumentScores]
) -> dict[str, float]:
    """Return NDCG@10 by collection, and the mean."""
    results = {}
    for collection in collections:
        judged = {
            f"{collection.name}/{query}": {f"{collection.name}/{document}": grade for document, grade in grades.items()}
            for query, grades in collection.known_judgements().items()
        }
        ranked = {query: list(rankings[query].items()) for query in judged if query in rankings}
        results[collection.name] = round(measure_rankings(judged, ranked).mean["ndcg@10"], 4)
    return results | {"mean": round(sum(results.values()) / len(results), 4)}
