"""Latency of sparse queries beside a lexical search: `rank_feature` and `match` on the same index, in turn.

    python -m benchmarks sparse_vs_match FOLDER --cache CACHE --json benchmarks/results/sparse_vs_match.json
    python -m benchmarks pruning FOLDER --cache CACHE --json benchmarks/results/pruning.json

FOLDER has external texts (benchmarks.large_index), stored with the service's mapping; queries are their titles. A
client with a kept connection (benchmarks.service) reads ids and scores of ten hits, without sources.

`sparse_vs_match` compares whole queries; passages are cut to their first pieces. `pruning` compares pruned queries, two
phases and both, with a filter and without (docs/decisions/0151); texts are cut whole to stretches of 64 pieces.
`--encoded` passages or stretches are encoded; larger indexes repeat them.
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
import uvloop

from benchmarks.large_index import (
    PASSAGE_SPEC,
    SourcePassage,
    choose_title_queries,
    cut_first_windows,
    encode_stretches,
    load_or_encode_vectors,
    original_id,
    read_mixed_passages,
    repeat_documents,
)
from benchmarks.measuring import (
    make_parser,
    measure_processor_time,
    percentile_ratios,
    run_benchmark,
    summarise_durations,
    take_turns,
)
from benchmarks.quality.pruning import ALL_WAYS, TIMEOUT_SECONDS
from benchmarks.service import (
    EncodedPair,
    LoopbackConnection,
    create_index,
    fill_generation,
    index_size,
    merge_to_one_segment,
    open_node,
    read_opensearch_version,
    wait_for_merges,
)
from cli.relevance.metrics import measure_rankings
from models.registry import load_encoder
from services.documents.document import Document
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.index_spec import Generation
from services.opensearch.client import SyncSearchClient
from services.opensearch.queries import build_search_body, lexical_query, sparse_query
from services.opensearch.stored_document import EncodedWindow
from services.query.expansion import prune_query
from services.settings import Settings

HIT_COUNT = 10
# Ways that are timed: each takes minutes at 500,000 documents. Other thresholds and windows lost as much quality.
TIMED_WAYS: Final = (
    "whole", "pruned 0.2", "pruned 0.3", "two phases 0.4, 200", "two phases 0.5, 200", "two phases 0.6, 200",
    "pruned 0.2, two phases 0.5, 200", "pruned 0.2, two phases 0.6, 200",
)  # fmt: skip
MATCH_WAY = "match"
# Ways that are also timed with a filter that leaves one document in a thousand.
FILTERED_WAYS = (MATCH_WAY, "whole", "pruned 0.2, two phases 0.5, 200")
_SUFFIX = ", filtered"
_FILTER = [{"term": {"metadata.part": "7"}}]
_NESTED_SPEC = PASSAGE_SPEC.model_copy(update={"windows": "nested"})
HitList = list[tuple[str, float]]
HitLists = Mapping[str, HitList]


def sparse_vs_match(argv: list[str] | None = None) -> None:
    """Compare `rank_feature` and `match` on the same index."""
    parser = make_parser("sparse_vs_match", sparse_vs_match.__doc__)
    parser.add_argument("folder", type=Path, help="folder of wikipedia_lead.jsonl.gz and the others")
    parser.add_argument("--cache", type=Path, help="keep the vectors there: encoding 60,000 takes ten minutes")
    parser.add_argument("--sizes", default="5000,60000", help="documents of each index")
    parser.add_argument("--encoded", type=int, default=60_000, help="passages that are encoded")
    parser.add_argument("--pieces", type=int, default=64, help="pieces of each passage")
    parser.add_argument("--queries", type=int, default=200, help="queries of each kind")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all queries and sides")
    run_benchmark("sparse_vs_match", parser, measure_sparse_vs_match, argv)


def measure_sparse_vs_match(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the table by size of the index, as written and merged to one segment."""
    sizes = [int(size) for size in arguments.sizes.split(",")]
    passages = read_mixed_passages(arguments.folder, min(max(sizes), arguments.encoded))
    rows: dict[str, Any] = {}
    # Before the start of the node, because encoding takes minutes.
    encoded = make_encoded_passages(Settings.read().encoder, passages, arguments.pieces, arguments.cache)
    with open_node() as settings:
        queries = choose_title_queries(passages[: min(sizes)], arguments.queries)
        with closing(SyncSearchClient(settings)) as search:
            for size in sizes:
                generation = create_index(search, settings, f"passages{size}", PASSAGE_SPEC)
                nested = create_index(search, settings, f"windows{size}", _NESTED_SPEC)
                for each in (generation, nested):
                    fill_generation(search, settings, each, repeat_documents(encoded[:size], size))
                    wait_for_merges(search, each)
                # The JVM is fast only after thousands of the same request.
                uvloop.run(compare_with_match(settings, generation, nested, queries, 3))
                for state in ("as written", "one segment"):
                    if state == "one segment":
                        merge_to_one_segment(search, generation)
                        merge_to_one_segment(search, nested)
                    row = uvloop.run(compare_with_match(settings, generation, nested, queries, arguments.rounds))
                    name = f"{size} documents, {state}"
                    rows[name] = index_size(search, generation) | {"nested": index_size(search, nested)} | row
                    for kind in row:
                        _print_row(f"{name}, {kind}", row[kind])
        version = read_opensearch_version(settings)
    weights = [len(windows[0].vector) for _, windows in encoded]
    return {
        "opensearch": version,
        "encoded_documents": len(encoded),
        "weights_a_document_mean": round(sum(weights) / len(weights), 1),
        "hits": HIT_COUNT,
        "cases": rows,
    }


def make_encoded_passages(
    name: str, passages: list[SourcePassage], pieces: int, cache: Path | None
) -> list[EncodedPair]:
    """Return documents of the passages' first pieces, with the vectors of the same pieces."""
    encoder = load_encoder(name)
    windows = cut_first_windows(encoder, passages, pieces)
    vectors = load_or_encode_vectors(encoder, windows, cache)
    return [
        (
            Document(f"p{number}", passage.text[window.start : window.end]),
            [EncodedWindow(window.start, window.end, vector)],
        )
        for number, (passage, window, vector) in enumerate(zip(passages, windows, vectors, strict=True))
    ]


async def compare_with_match(
    settings: Settings, generation: Generation, nested: Generation, queries: dict[str, list[str]], rounds: int
) -> dict[str, Any]:
    """Return the sides' milliseconds by kind of query, their ratios, and OpenSearch's own `took`.

    `window` is the sparse side on `nested`, an index of the same documents that scores by the best window.
    """
    table, share = QueryTable.load(resolve_model_directory(settings.encoder)), settings.prune
    paths = dict.fromkeys(("sparse", "pruned", "match"), f"/{generation.physical}/_search")
    paths["window"] = f"/{nested.physical}/_search"
    results: dict[str, Any] = {}
    async with LoopbackConnection(settings.opensearch_url) as connection:
        for kind, texts in queries.items():
            vectors = {text: table.encode(text, 1000) for text in texts}
            pruned = {text: prune_query(vector, share) for text, vector in vectors.items()}
            bodies = {
                "sparse": {text: _make_body(sparse_query(vectors[text]), settings) for text in texts},
                "pruned": {text: _make_body(sparse_query(pruned[text]), settings) for text in texts},
                "window": {text: _make_body(sparse_query(pruned[text], "window"), settings) for text in texts},
                "match": {text: _make_body(lexical_query(text), settings) for text in texts},
            }
            engine: dict[str, list[int]] = {name: [] for name in bodies}

            async def send(side: str, text: str, bodies: Any = bodies, engine: Any = engine) -> None:
                answer = await connection.send("POST", paths[side], bodies[side][text])
                engine[side].append(answer["took"])

            durations = await take_turns({side: partial(send, side) for side in bodies}, texts, rounds)
            rows = {side: summarise_durations(values) for side, values in durations.items()}
            # The first round is not counted here either.
            counted = {side: values[len(texts) :] for side, values in engine.items()}
            results[kind] = {
                "queries": len(texts),
                "words": round(sum(len(text.split()) for text in texts) / len(texts), 1),
                "pieces": round(sum(len(vector.ids) for vector in vectors.values()) / len(texts), 1),
                **{f"{side}_ms": row for side, row in rows.items()},
                "sparse_over_match": percentile_ratios(rows["sparse"], rows["match"]),
                "pruned_over_match": percentile_ratios(rows["pruned"], rows["match"]),
                "window_over_pruned": percentile_ratios(rows["window"], rows["pruned"]),
                "engine_took_mean_ms": {side: round(sum(v) / len(v), 3) for side, v in counted.items()},
            }
    return results


def _make_body(query: dict[str, Any], settings: Settings) -> bytes:
    return orjson.dumps(build_search_body(query, HIT_COUNT, False, settings.search_timeout))


def _print_row(name: str, row: dict[str, Any]) -> None:
    sparse, match, ratio = row["sparse_ms"], row["match_ms"], row["sparse_over_match"]
    each = ", ".join(f"{p} {sparse[p]:.2f} / {match[p]:.2f} = {ratio[p]:.2f}" for p in ("p50", "p90", "p99"))
    others = f"pruned {row['pruned_over_match']['p50']:.2f}, window over pruned {row['window_over_pruned']['p50']:.2f}"
    print(f"{name:>40}: {each}; {others}; engine {row['engine_took_mean_ms']}", flush=True)


def pruning(argv: list[str] | None = None) -> None:
    """Measure the latency of pruned queries and of two phases, beside `match`."""
    parser = make_parser("pruning", pruning.__doc__)
    parser.add_argument("folder", type=Path, help="folder of wikipedia_lead.jsonl.gz and the others")
    parser.add_argument("--cache", type=Path, help="keep the vectors there: encoding takes an hour")
    parser.add_argument("--sizes", default="5000,60000,500000", help="documents of each index")
    parser.add_argument("--encoded", type=int, default=125_000, help="stretches that are encoded")
    parser.add_argument(
        "--merge", action=argparse.BooleanOptionalAction, default=True, help="also merged to one segment"
    )
    parser.add_argument("--pieces", type=int, default=64, help="pieces of each stretch")
    parser.add_argument("--queries", type=int, default=200, help="queries of each kind")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all queries and ways")
    run_benchmark("pruning", parser, measure_latency, argv)


def measure_latency(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the table by size of the index, as written and merged to one segment."""
    sizes = [int(size) for size in arguments.sizes.split(",")]
    # Before the start of the node, because encoding takes an hour.
    stretches, real = encode_stretches(
        Settings.read().encoder, arguments.folder, arguments.encoded, arguments.pieces, arguments.cache
    )
    # Titles of the smallest index find something in each index.
    queries = choose_title_queries(stretches[: min(*sizes, arguments.encoded)], arguments.queries)
    rows: dict[str, Any] = {}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        for size in sizes:
            generation = create_index(search, settings, f"stretches{size}", PASSAGE_SPEC)
            fill_generation(search, settings, generation, repeat_documents(real[:size], size))
            wait_for_merges(search, generation)
            judged = judge_by_title(stretches[:size])
            for state in ("as written", *(["one segment"] if arguments.merge else [])):
                if state == "one segment":
                    merge_to_one_segment(search, generation)
                name = f"{size} documents, {state}"
                rows[name] = index_size(search, generation)
                for kind, texts in queries.items():
                    rows[name][kind] = uvloop.run(
                        compare_latency(settings, generation, texts, judged, arguments.rounds)
                    )
                    _print_variants(f"{name}, {kind}", rows[name][kind])
        version = read_opensearch_version(settings)
    lengths = [len(windows[0].vector) for _, windows in real]
    return {
        "opensearch": version,
        "encoded_documents": len(real),
        "weights_a_document_mean": round(sum(lengths) / len(lengths), 1),
        "queries": {kind: len(texts) for kind, texts in queries.items()},
        "hits": HIT_COUNT,
        "cases": rows,
    }


async def compare_latency(
    settings: Settings,
    generation: Generation,
    texts: Sequence[str],
    judged: Mapping[str, dict[str, int]],
    rounds: int,
) -> dict[str, Any]:
    """Return milliseconds and processor time by way, both also relative to `match`, and the quality of the lists."""
    table = QueryTable.load(resolve_model_directory(settings.encoder))
    path = f"/{generation.physical}/_search"
    requests = make_requests(table, texts, HIT_COUNT)
    async with LoopbackConnection(settings.opensearch_url) as connection:

        async def send(way: str, text: str) -> HitList:
            return await send_request(connection, path, requests[way][text], HIT_COUNT)

        sides = {way: partial(send, way) for way in requests}
        # The JVM is fast only after thousands of the same request, in each state of an index.
        await take_turns(sides, texts, 1)
        lists = {way: {text: await send(way, text) for text in texts} for way in requests}
        durations = {
            way: summarise_durations(values) for way, values in (await take_turns(sides, texts, rounds)).items()
        }
        busy = await measure_processor_time(partial(_processor_ms, connection), sides, texts, rounds)
    return {
        way: {
            "ms": durations[way],
            "over_match": percentile_ratios(durations[way], durations[MATCH_WAY]),
            "processor_ms": busy[way],
            "processor_over_match": round(busy[way] / busy[MATCH_WAY], 3),
            "hits_of_whole": _hit_overlap(lists[unpruned_way(way)], lists[way]),
            "ndcg@10_of_own_stretches": _mean_ndcg(judged, lists[way]),
        }
        for way in requests
    }


@dataclass(frozen=True)
class WayRequest:
    """Request body, and the body that follows when two phases find too few documents."""

    body: bytes
    in_one_phase: bytes | None = None


def make_requests(table: QueryTable, texts: Iterable[str], size: int) -> dict[str, dict[str, WayRequest]]:
    """Return the requests by way and query."""
    requests: dict[str, dict[str, WayRequest]] = {}
    for text in texts:
        query = table.encode(text, 1000)
        bodies = {MATCH_WAY: [build_search_body(lexical_query(text), size, False, TIMEOUT_SECONDS)]}
        for name in TIMED_WAYS:
            way = ALL_WAYS[name]
            ways = (way, way.in_one_phase()) if way.window else (way,)
            bodies[name] = [phases.search(query, size) for phases in ways]
        for name in FILTERED_WAYS:
            bodies[name + _SUFFIX] = [_add_filter(body) for body in bodies[name]]
        for name, searches in bodies.items():
            requests.setdefault(name, {})[text] = WayRequest(*(orjson.dumps(search) for search in searches))
    return requests


def _add_filter(search: dict[str, Any]) -> dict[str, Any]:
    query = search["query"]
    if "bool" in query:
        # Beside a filter, no `should` clause has to match by default.
        return search | {"query": {"bool": query["bool"] | {"filter": _FILTER, "minimum_should_match": 1}}}
    return search | {"query": {"bool": {"must": [query], "filter": _FILTER}}}


def unpruned_way(name: str) -> str:
    """Return the way whose hits are the reference: the whole query, under the same filter."""
    return f"whole{_SUFFIX}" if name.endswith(_SUFFIX) else "whole"


async def send_request(connection: LoopbackConnection, path: str, request: WayRequest, size: int) -> HitList:
    """Return the list that the API would return."""
    hits = _read_hits(await connection.send("POST", path, request.body))
    if request.in_one_phase and request.in_one_phase != request.body and len(hits) < size:
        hits = _read_hits(await connection.send("POST", path, request.in_one_phase))
    return hits


def _read_hits(answer: Mapping[str, Any]) -> HitList:
    return [(hit["_id"], hit["_score"]) for hit in answer["hits"]["hits"]]


async def _processor_ms(connection: LoopbackConnection) -> float:
    # OpenSearch updates the figure once a second.
    await asyncio.sleep(1.1)
    answer = await connection.send("GET", "/_nodes/_local/stats/process?filter_path=nodes.*.process.cpu")
    return float(sum(node["process"]["cpu"]["total_in_millis"] for node in answer["nodes"].values()))


def _hit_overlap(whole: HitLists, other: HitLists) -> float:
    """Return the share of the whole query's hits that are hits here; all copies of a document are equal."""
    both = total = 0
    for text, listed in whole.items():
        expected, actual = (Counter(original_id(name) for name, _ in hits) for hits in (listed, other[text]))
        both, total = both + (expected & actual).total(), total + expected.total()
    return round(both / max(total, 1), 4)


def _mean_ndcg(judged: Mapping[str, dict[str, int]], lists: HitLists) -> float:
    """Return NDCG@10; only the first copy of a document counts."""
    first = {
        text: [(name, 0.0) for name in dict.fromkeys(original_id(name) for name, _ in listed)]
        for text, listed in lists.items()
    }
    return round(measure_rankings({text: judged[text] for text in lists}, first).mean["ndcg@10"], 5)


def judge_by_title(passages: Sequence[SourcePassage]) -> dict[str, dict[str, int]]:
    """Return judgements by rule: the stretches of a title's texts are relevant to the title."""
    judged: dict[str, dict[str, int]] = {}
    for number, passage in enumerate(passages):
        judged.setdefault(passage.title, {})[f"s{number}"] = 1
    return judged


def _print_variants(name: str, ways: Mapping[str, Any]) -> None:
    print(name)
    for way, row in ways.items():
        print(
            f"  {way:>40}  p50 {row['ms']['p50']:6.2f} ms ({row['over_match']['p50']:.2f} of match)"
            f"  processor {row['processor_ms']:6.2f} ms ({row['processor_over_match']:.2f})"
            f"  hits {row['hits_of_whole']:.3f}  NDCG@10 {row['ndcg@10_of_own_stretches']:.4f}",
            flush=True,
        )
