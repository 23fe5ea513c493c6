"""Query pruning and two phases: latency beside a keyword search, and quality on judged collections.

    python -m benchmarks pruning FOLDER --cache CACHE --json benchmarks/results/pruning.json
    python -m benchmarks pruning_quality DATA --json benchmarks/results/pruning-quality.json

FOLDER has external texts (benchmarks.large_index), cut to stretches of 64 pieces; queries are their titles. One client
with one kept connection reads ids and scores of ten hits. `--encoded` stretches are encoded; larger indexes repeat
them.

DATA has a directory for each collection, in BEIR's layout. Sparse lists are exact, of an index of one shard, and have
as many documents as there are candidates; fusion is that of `fusion_weights` (docs/decisions/0151).
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.collections import (
    CANDIDATE_COUNT,
    DEMO_COLLECTION,
    JudgedLists,
    judged_arguments,
    open_judged_collections,
)
from benchmarks.large_index import (
    PASSAGE_SPEC,
    SourcePassage,
    choose_title_queries,
    encode_stretches,
    original_id,
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
from benchmarks.quality.fusion_weights import fuse_rankings
from benchmarks.query_ways import ALL_WAYS, MATCH_WAY, HitList, make_requests, send_request, unpruned_way
from benchmarks.service import (
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
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.index_spec import Generation
from services.opensearch.client import SyncSearchClient
from services.query.fusion import DEFAULT_WEIGHTS
from services.settings import Settings

HIT_COUNT = 10
FigureRow = dict[str, float]
HitLists = Mapping[str, HitList]


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


async def _processor_ms(connection: LoopbackConnection) -> float:
    # OpenSearch updates the figure once a second.
    await asyncio.sleep(1.1)
    answer = await connection.send("GET", "/_nodes/_local/stats/process?filter_path=nodes.*.process.cpu")
    return float(sum(node["process"]["cpu"]["total_in_millis"] for node in answer["nodes"].values()))


def _hit_overlap(whole: HitLists, other: HitLists) -> float:
    """Return the share of the whole query's hits that are hits here; all copies of a document are equal."""
    both = total = 0
    for text, listed in whole.items():
        one, two = (Counter(original_id(name) for name, _ in some) for some in (listed, other[text]))
        both, total = both + (one & two).total(), total + one.total()
    return round(both / max(total, 1), 4)


def _mean_ndcg(judged: Mapping[str, dict[str, int]], lists: HitLists) -> float:
    """Return NDCG@10; of copies the first one counts."""
    first = {
        text: [(name, 0.0) for name in dict.fromkeys(original_id(name) for name, _ in listed)]
        for text, listed in lists.items()
    }
    return round(measure_rankings({text: judged[text] for text in lists}, first).mean["ndcg@10"], 5)


def judge_by_title(passages: Sequence[SourcePassage]) -> dict[str, dict[str, int]]:
    """Return judgements by rule: relevant to a title are the stretches of its texts."""
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


def pruning_quality(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 of pruned queries and of two phases, sparse and hybrid."""
    run_benchmark(
        "pruning_quality", judged_arguments("pruning_quality", pruning_quality.__doc__), measure_quality, argv
    )


def measure_quality(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every collection, and their summary without the demo's."""
    encoder = load_encoder(arguments.encoder, threads=arguments.threads)
    table = QueryTable.load(resolve_model_directory(arguments.encoder))
    rows: dict[str, dict[str, FigureRow]] = {}
    with open_node() as settings:
        version = read_opensearch_version(settings)
        for judged in open_judged_collections(arguments, encoder, settings):
            rows[judged.name] = compare_quality(judged, table)
            print(f"{judged.name}: measured", flush=True)
    demo = rows.pop(DEMO_COLLECTION)
    summary = summarise_rows(rows)
    for way, row in summary.items():
        parts = (
            f"{kind} {mean['mean']:.4f} ({-mean['lost']:+.4f}, {-mean['most_lost']:+.4f})" for kind, mean in row.items()
        )
        print(f"{way:>40}  " + "  ".join(parts))
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "candidates": CANDIDATE_COUNT,
        "summary": summary,
        "by_collection": rows,
        "not_used_for_the_choice": {DEMO_COLLECTION: demo},
    }


def compare_quality(judged: JudgedLists, table: QueryTable) -> dict[str, FigureRow]:
    """Return NDCG@10 of sparse and hybrid lists by way, the pieces that find documents, and their postings."""
    queries = {name: table.encode(text, 1000) for name, text in judged.queries.items()}
    rows: dict[str, FigureRow] = {}
    for way_name, way in ALL_WAYS.items():
        lists = {name: way.ranking(judged.index, query, CANDIDATE_COUNT) for name, query in queries.items()}
        fused = fuse_rankings(lists, judged.lexical, DEFAULT_WEIGHTS["sparse"])
        heads = [way.parts(query)[0] for query in queries.values()]
        rows[way_name] = {
            "sparse": round(measure_rankings(judged.judgements, lists).mean["ndcg@10"], 5),
            "hybrid": round(measure_rankings(judged.judgements, fused).mean["ndcg@10"], 5),
            "pieces": round(sum(len(head.ids) for head in heads) / len(heads), 2),
            "postings_a_document": round(
                sum(judged.index.postings(piece) for head in heads for piece in head.ids)
                / len(heads)
                / len(judged.index.names),
                4,
            ),
        }
    return rows


def summarise_rows(rows: Mapping[str, Mapping[str, FigureRow]]) -> dict[str, dict[str, FigureRow]]:
    """Return, by way and list, the mean over collections, the loss to the whole query, and the largest loss."""
    summary: dict[str, dict[str, FigureRow]] = {}
    for way in ALL_WAYS:
        summary[way] = {}
        for kind in ("sparse", "hybrid"):
            lost = [row["whole"][kind] - row[way][kind] for row in rows.values()]
            summary[way][kind] = {
                "mean": round(sum(row[way][kind] for row in rows.values()) / len(rows), 5),
                "lost": round(sum(lost) / len(lost), 5),
                "most_lost": round(max(lost), 5),
            }
    return summary
