"""What do query pruning and two phases gain in time, alone and together, and beside a keyword search?

    python -m benchmarks.pruning FOLDER --cache CACHE --json benchmarks/results/pruning.json

FOLDER holds texts that are not part of the project (see benchmarks.passages): they are cut to stretches of 64 pieces,
encoded by the configured encoder and stored with the service's mapping; queries are titles of theirs. One client, one
kept connection, ids and scores of ten hits. `--encoded` stretches are encoded; larger indexes repeat them
(benchmarks.large_index). What it costs on judged collections: benchmarks.pruning_quality.
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

from benchmarks.asked_ways import MATCH, Hits, hits, requests, unpruned
from benchmarks.filled_index import create, fill
from benchmarks.large_index import SPEC, real_documents, real_name, repeated
from benchmarks.loopback import KeptConnection
from benchmarks.passages import Passage
from benchmarks.record import command_line, run
from benchmarks.segments import merge_to_one, settle, size_of
from benchmarks.service import node_settings, opensearch_version
from benchmarks.sparse_vs_match import title_queries
from benchmarks.timing import processor_time, ratios, spread, take_turns
from cli.relevance.metrics import measure
from services.index_spec import Generation
from services.manifest import resolve
from services.opensearch.client import SyncSearch
from services.query_table import QueryTable
from services.settings import Settings

SIZE = 10

Lists = Mapping[str, Hits]


async def compared(
    settings: Settings,
    generation: Generation,
    texts: Sequence[str],
    judged: Mapping[str, dict[str, int]],
    rounds: int,
) -> dict[str, Any]:
    """Of each way: milliseconds, processor time, both over those of `match`, and what the lists are worth."""
    table = QueryTable.load(resolve(settings.encoder))
    path = f"/{generation.physical}/_search"
    asked = requests(table, texts, SIZE)
    async with KeptConnection(settings.opensearch_url) as connection:

        async def ask(way: str, text: str) -> Hits:
            return await hits(connection, path, asked[way][text], SIZE)

        sides = {way: partial(ask, way) for way in asked}
        # a Java process is fast only after thousands of the same request, and each state of an index has its own
        await take_turns(sides, texts, 1)
        lists = {way: {text: await ask(way, text) for text in texts} for way in asked}
        took = {way: spread(values) for way, values in (await take_turns(sides, texts, rounds)).items()}
        busy = await processor_time(partial(_processor_ms, connection), sides, texts, rounds)
    return {
        way: {
            "ms": took[way],
            "over_match": ratios(took[way], took[MATCH]),
            "processor_ms": busy[way],
            "processor_over_match": round(busy[way] / busy[MATCH], 3),
            "hits_of_whole": _agreement(lists[unpruned(way)], lists[way]),
            "ndcg@10_of_own_stretches": _quality(judged, lists[way]),
        }
        for way in asked
    }


async def _processor_ms(connection: KeptConnection) -> float:
    # OpenSearch looks once a second at most
    await asyncio.sleep(1.1)
    answer = await connection.send("GET", "/_nodes/_local/stats/process?filter_path=nodes.*.process.cpu")
    return float(sum(node["process"]["cpu"]["total_in_millis"] for node in answer["nodes"].values()))


def _agreement(whole: Lists, other: Lists) -> float:
    """The share of the hits of the whole query that are hits here; of copies it does not matter which."""
    both = total = 0
    for text, listed in whole.items():
        one, two = (Counter(real_name(name) for name, _ in some) for some in (listed, other[text]))
        both, total = both + (one & two).total(), total + one.total()
    return round(both / max(total, 1), 4)


def _quality(judged: Mapping[str, dict[str, int]], lists: Lists) -> float:
    """NDCG@10; of copies the first one counts."""
    first = {
        text: [(name, 0.0) for name in dict.fromkeys(real_name(name) for name, _ in listed)]
        for text, listed in lists.items()
    }
    return round(measure({text: judged[text] for text in lists}, first).mean["ndcg@10"], 5)


def own_stretches(found: Sequence[Passage]) -> dict[str, dict[str, int]]:
    """Judgements without judges: what a title is meant to find are the stretches of the texts that have it."""
    judged: dict[str, dict[str, int]] = {}
    for number, passage in enumerate(found):
        judged.setdefault(passage.title, {})[f"s{number}"] = 1
    return judged


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """The table by size of the index, as it was written and merged to one segment."""
    sizes = [int(size) for size in given.sizes.split(",")]
    # before the node is started: a cold cache takes an hour
    found, real = real_documents(Settings.read().encoder, given.folder, given.encoded, given.pieces, given.cache)
    # titles of the smallest index, so that they have something to find in each
    queries = title_queries(found[: min(*sizes, given.encoded)], given.queries)
    rows: dict[str, Any] = {}
    with node_settings() as settings, closing(SyncSearch(settings)) as search:
        for size in sizes:
            generation = create(search, settings, f"stretches{size}", SPEC)
            fill(search, settings, generation, repeated(real[:size], size))
            settle(search, generation)
            judged = own_stretches(found[:size])
            for state in ("as written", *(["one segment"] if given.merge else [])):
                if state == "one segment":
                    merge_to_one(search, generation)
                name = f"{size} documents, {state}"
                rows[name] = size_of(search, generation)
                for kind, texts in queries.items():
                    rows[name][kind] = uvloop.run(compared(settings, generation, texts, judged, given.rounds))
                    _show(f"{name}, {kind}", rows[name][kind])
        version = opensearch_version(settings)
    lengths = [len(windows[0].vector) for _, windows in real]
    return {
        "opensearch": version,
        "encoded_documents": len(real),
        "weights_a_document_mean": round(sum(lengths) / len(lengths), 1),
        "queries": {kind: len(texts) for kind, texts in queries.items()},
        "hits": SIZE,
        "cases": rows,
    }


def _show(name: str, ways: Mapping[str, Any]) -> None:
    print(name)
    for way, row in ways.items():
        print(
            f"  {way:>40}  p50 {row['ms']['p50']:6.2f} ms ({row['over_match']['p50']:.2f} of match)"
            f"  processor {row['processor_ms']:6.2f} ms ({row['processor_over_match']:.2f})"
            f"  hits {row['hits_of_whole']:.3f}  NDCG@10 {row['ndcg@10_of_own_stretches']:.4f}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("pruning", __doc__)
    parser.add_argument("folder", type=Path, help="holds wikipedia_lead.jsonl.gz and the others")
    parser.add_argument("--cache", type=Path, help="keeps the vectors there: encoding takes an hour")
    parser.add_argument("--sizes", default="5000,60000,500000", help="documents of each index")
    parser.add_argument("--encoded", type=int, default=125_000, help="stretches that are encoded")
    parser.add_argument("--merge", action=argparse.BooleanOptionalAction, default=True, help="one segment, too")
    parser.add_argument("--pieces", type=int, default=64, help="of each stretch")
    parser.add_argument("--queries", type=int, default=200, help="of each kind")
    parser.add_argument("--rounds", type=int, default=3, help="times that every query is asked in each way")
    run("pruning", parser, measured, arguments)


if __name__ == "__main__":
    main()
