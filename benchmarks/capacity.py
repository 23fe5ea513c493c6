"""What does a search and a document cost, by the size of the index? What `sparsewell plan` is fitted on.

    python -m benchmarks.capacity FOLDER --cache CACHE --json benchmarks/results/capacity.json

FOLDER holds texts that are not part of the project (see benchmarks.passages). Indexes of several sizes, lengths of
document and numbers of shards are filled, then searched in turn through the API process, one question at a time: bytes,
milliseconds of the clock and of the processor. Last, one index is asked at several rates with more than one question
under way. `python -m benchmarks.plan_coefficients` fits on the points that are named `fit`, and predicts the others.

An API asked at given rates: questions come when they come, whether the ones before are answered or not.
"""

import argparse
import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import orjson
import psutil
import uvloop

from benchmarks.capacity_fit import ObservedIndex
from benchmarks.large_index import (
    PASSAGE_SPEC,
    SourcePassage,
    cut_first_windows,
    load_or_encode_vectors,
    read_mixed_passages,
    repeat_documents,
)
from benchmarks.latency.sparse_vs_match import choose_title_queries
from benchmarks.measuring import make_parser, process_processor_ms, run_benchmark, summarise_durations
from benchmarks.service import (
    EncodedPair,
    LoopbackConnection,
    create_index,
    fill_generation,
    open_node,
    read_opensearch_version,
    run_process,
    wait_for_merges,
)
from cli.planning import MODES
from models.registry import load_encoder
from services.documents.document import Document
from services.index_spec import Generation
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import refresh_call
from services.opensearch.stored_document import EncodedWindow
from services.settings import Settings

RATES_PER_SECOND = (10, 40, 80, 160)
_CONNECTIONS = 16


async def measure_at_rates(
    settings: Settings, index: str, queries: Sequence[str], seconds: float, mode: str
) -> list[dict[str, float]]:
    """For each rate (a Poisson process) milliseconds from when a question was due to its answer, and the share of all
    cores of the machine that was busy, everything on it counted.
    """
    rows = []
    for rate in RATES_PER_SECOND:
        order = random.Random(rate)
        free: asyncio.Queue[LoopbackConnection] = asyncio.Queue()
        kept = [LoopbackConnection(f"http://{settings.api_host}:{settings.api_port}") for _ in range(_CONNECTIONS)]
        for connection in kept:
            free.put_nowait(await connection.__aenter__())
        took: list[float] = []

        async def ask(due: float, query: str, free: Any = free, took: list[float] = took) -> None:
            connection = await free.get()
            try:
                body = orjson.dumps({"query": query, "mode": mode, "did_you_mean": False})
                await connection.send("POST", f"/v1/indexes/{index}/search", body)
            finally:
                free.put_nowait(connection)
            took.append((perf_counter() - due) * 1000)

        psutil.cpu_percent()
        begun = due = perf_counter()
        asking = set()
        while due < begun + seconds:
            await asyncio.sleep(max(0, due - perf_counter()))
            asking.add(asyncio.create_task(ask(due, order.choice(queries))))
            due += order.expovariate(rate)
        busy = psutil.cpu_percent() / 100
        await asyncio.gather(*asking)
        for connection in kept:
            await connection.__aexit__(None, None, None)
        row = {"a_second": rate, "busy": round(busy, 3)} | summarise_durations(took)
        print(f"{rate:>4} a second: busy {busy:.2f}, p50 {row['p50']:.2f} ms, p99 {row['p99']:.2f} ms", flush=True)
        rows.append(row)
    return rows


# Files of what is only shown (`_source`): no search reads them but for its hits, and a page cache need not hold them.
_SEARCH_FILE_SUFFIXES = ("fdt", "fdx", "fdm")


@dataclass(frozen=True, slots=True)
class IndexPoint:
    """One index. `role`: whether coefficients are fitted on it, or held against it."""

    role: str
    documents: int
    pieces: int
    shards: int = 1

    @property
    def index(self) -> str:
        return f"d{self.documents}p{self.pieces}s{self.shards}"


POINTS = (
    IndexPoint("fit", 10_000, 64),
    IndexPoint("fit", 40_000, 64),
    IndexPoint("fit", 120_000, 64),
    IndexPoint("fit", 40_000, 192),
    IndexPoint("fit", 40_000, 64, shards=4),
    IndexPoint("fit", 200_000, 64),
    IndexPoint("check", 80_000, 64),
    IndexPoint("check", 80_000, 64, shards=2),
    IndexPoint("check", 40_000, 128),
    IndexPoint("check", 400_000, 64),
)
_LOADED_POINT = POINTS[1]


def measure_capacity(given: argparse.Namespace) -> dict[str, Any]:
    """All points, and the index under load."""
    encoder, points = Settings.read().encoder, [point for point in POINTS if point.documents <= given.most]
    texts = {pieces: _encode_texts(encoder, given, pieces) for pieces in sorted({point.pieces for point in points})}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        sizes = {point: _fill_index(search, settings, point, texts[point.pieces]) for point in points}
        with run_process(settings, "api") as api:
            asked = {point: _title_queries(texts[point.pieces].passages, given.queries) for point in points}
            ways = SearchRounds(settings, search, api.pid, asked)
            modes = uvloop.run(ways.in_turn(given.warm, given.rounds))
            index, queries = _LOADED_POINT.index, asked[_LOADED_POINT]
            under_load = uvloop.run(measure_at_rates(settings, index, queries, given.seconds, "hybrid"))
        version = read_opensearch_version(settings)
    found = {point: _make_observed(point, texts[point.pieces], *sizes[point], modes[point]) for point in points}
    for point, one in found.items():
        print(f"{point.role:>5} {point.index:>16}: {_format_observed(one)}", flush=True)
    return {
        "opensearch": version,
        "points": [{"role": point.role, "index": point.index} | asdict(one) for point, one in found.items()],
        "load": {"index": index, "mode": "hybrid", "rates": under_load},
    }


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """Passages cut to a length, as documents with their vectors, and how long they are on average."""

    passages: Sequence[SourcePassage]
    encoded: Sequence[EncodedPair]
    pieces: float
    words: float


def _encode_texts(encoder: str, given: argparse.Namespace, pieces: int) -> EncodedTexts:
    loaded = load_encoder(encoder)
    found = read_mixed_passages(given.folder, given.encoded)
    windows = cut_first_windows(loaded, found, pieces)
    texts = [one.text[window.start : window.end] for one, window in zip(found, windows, strict=True)]
    vectors = load_or_encode_vectors(loaded, windows, given.cache)
    encoded = [
        (Document(f"s{number}", text), [EncodedWindow(0, len(text), vector)])
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
    lengths = [len(window.piece_ids) for window in windows]
    words = [len(text.split()) for text in texts]
    return EncodedTexts(found, encoded, round(fmean(lengths), 1), round(fmean(words), 1))


def _title_queries(found: Sequence[SourcePassage], count: int) -> list[str]:
    return [text for texts in choose_title_queries(found, count).values() for text in texts]


def _fill_index(search: SyncSearchClient, settings: Settings, point: IndexPoint, some: EncodedTexts) -> tuple[int, int]:
    """Makes the index. Bytes of all of it, and of what searches read."""
    began = perf_counter()
    generation = create_index(search, settings.model_copy(update={"shards": point.shards}), point.index, PASSAGE_SPEC)
    fill_generation(search, settings, generation, repeat_documents(some.encoded, point.documents))
    wait_for_merges(search, generation)
    # What was merged is deleted once nothing reads it and no commit names it; before, an index can look twice as large.
    search.send(refresh_call(generation.physical))
    search.send(Call("POST", f"/{generation.physical}/_flush", params={"force": "true"}))
    print(f"{point.index}: filled in {perf_counter() - began:.0f} s", flush=True)
    return _index_bytes(search, generation)


def _index_bytes(search: SyncSearchClient, generation: Generation) -> tuple[int, int]:
    """Of the whole index, and of what searches read of it."""
    stats = Call("GET", f"/{generation.physical}/_stats/store", params={"filter_path": "_all.primaries"})
    stored = int(search.send(stats)["_all"]["primaries"]["store"]["size_in_bytes"])
    usage = Call("GET", f"/{generation.physical}/_stats/segments", params={"include_segment_file_sizes": "true"})
    sizes = search.send(usage)["_all"]["primaries"]["segments"]["file_sizes"]
    shown = sum(int(sizes.get(name, {}).get("size_in_bytes", 0)) for name in _SEARCH_FILE_SUFFIXES)
    everything = sum(int(one["size_in_bytes"]) for one in sizes.values()) or stored
    return stored, round(stored * (1 - shown / everything))


@dataclass(frozen=True, slots=True)
class SearchRounds:
    """Every index in every mode, asked in turn: a machine that is slow for a minute is slow for all of them."""

    settings: Settings
    search: SyncSearchClient
    api: int
    queries: Mapping[IndexPoint, Sequence[str]]

    async def in_turn(self, warm: int, rounds: int) -> dict[IndexPoint, dict[str, dict[str, float]]]:
        """By index and mode milliseconds of a search: the clock's percentiles, the processor's of node and API."""
        took: dict[tuple[IndexPoint, str], list[float]] = {
            (point, mode): [] for point in self.queries for mode in MODES
        }
        worked = {way: [0.0, 0.0] for way in took}
        async with LoopbackConnection(f"http://{self.settings.api_host}:{self.settings.api_port}") as connection:
            for turn in range(-warm, rounds):
                print(f"round {turn + 1} of {rounds}", flush=True)
                for (point, mode), clock in took.items():
                    before = _node_processor_ms(self.search), process_processor_ms(self.api)
                    clocks = [await self._asked(connection, point, mode, query) for query in self.queries[point]]
                    if turn >= 0:
                        clock.extend(clocks)
                        worked[point, mode][0] += _node_processor_ms(self.search) - before[0]
                        worked[point, mode][1] += process_processor_ms(self.api) - before[1]
        found: dict[IndexPoint, dict[str, dict[str, float]]] = {point: {} for point in self.queries}
        for (point, mode), clock in took.items():
            row, (node, api) = summarise_durations(clock), worked[point, mode]
            costs = {"node": round(node / len(clock), 3), "api": round(api / len(clock), 3)}
            found[point][mode] = {name: row[name] for name in ("p50", "p99", "mean")} | costs
        return found

    async def _asked(self, connection: LoopbackConnection, point: IndexPoint, mode: str, query: str) -> float:
        body = orjson.dumps({"query": query, "mode": mode, "did_you_mean": False})
        begun = perf_counter()
        await connection.send("POST", f"/v1/indexes/{point.index}/search", body)
        return (perf_counter() - begun) * 1000


def _node_processor_ms(search: SyncSearchClient) -> float:
    """Of the node's process, which runs on this machine: its own figure is up to a second old."""
    nodes = search.send(Call("GET", "/_nodes/process"))["nodes"].values()
    return sum(process_processor_ms(node["process"]["id"]) for node in nodes)


def _make_observed(
    point: IndexPoint, some: EncodedTexts, stored: int, searched: int, modes: Mapping[str, Mapping[str, float]]
) -> ObservedIndex:
    return ObservedIndex(point.documents, some.pieces, point.shards, some.words, stored, searched, modes)


def _format_observed(one: ObservedIndex) -> str:
    hybrid = one.modes["hybrid"]
    return (
        f"{one.stored / one.documents:,.0f} bytes a document ({one.searched / one.documents:,.0f} searched), "
        f"hybrid p50 {hybrid['p50']:.2f} ms, p99 {hybrid['p99']:.2f}, "
        f"processor {hybrid['node']:.2f} + {hybrid['api']:.2f}"
    )


def main(given: list[str] | None = None) -> None:
    """The command."""
    parser = make_parser("capacity", __doc__)
    parser.add_argument("folder", type=Path, help="holds wikipedia_lead.jsonl.gz and the others")
    parser.add_argument("--cache", type=Path, help="keeps the vectors there")
    parser.add_argument("--encoded", type=int, default=2500, help="passages of each length that are encoded")
    parser.add_argument("--most", type=int, default=10**9, help="points of more documents are left out")
    parser.add_argument("--queries", type=int, default=60, help="of each kind")
    parser.add_argument("--warm", type=int, default=3, help="rounds before, which nobody counts")
    parser.add_argument("--rounds", type=int, default=8, help="times that every query is asked")
    parser.add_argument("--seconds", type=float, default=20, help="of each rate under load")
    run_benchmark("capacity", parser, measure_capacity, given)


if __name__ == "__main__":
    main()
