"""Cost of a search and of a document by the size of the index, on which `sparsewell plan` is fitted.

    python -m benchmarks capacity FOLDER --cache CACHE --json benchmarks/results/capacity.json

FOLDER has external texts (benchmarks.large_index). Indexes of several sizes, lengths of documents and numbers of shards
are filled, then searched in turn through the API, one query at a time: bytes, milliseconds of the clock and of the
processor. Then one index gets queries at several rates, as a Poisson process. benchmarks.capacity_fit fits on the
points with the role `fit`, and predicts the others.
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
    choose_title_queries,
    cut_first_windows,
    load_or_encode_vectors,
    read_mixed_passages,
    repeat_documents,
)
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
# Files of `_source`. A search reads them for its hits only, so the page cache need not hold them.
_SOURCE_FILE_SUFFIXES = ("fdt", "fdx", "fdm")


@dataclass(frozen=True, slots=True)
class IndexPoint:
    """Measured index. `role`: `fit` for fitting, `check` for comparing the prediction."""

    role: str
    documents: int
    pieces: int
    shards: int = 1

    @property
    def index(self) -> str:
        """Return the name of the index."""
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


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """Passages cut to a length, as documents with vectors, and their mean number of pieces and words."""

    passages: Sequence[SourcePassage]
    encoded: Sequence[EncodedPair]
    pieces: float
    words: float


def capacity(argv: list[str] | None = None) -> None:
    """Measure the cost of a search, by size of the index, length of the documents and shards."""
    parser = make_parser("capacity", capacity.__doc__)
    parser.add_argument("folder", type=Path, help="folder of wikipedia_lead.jsonl.gz and the others")
    parser.add_argument("--cache", type=Path, help="keep the vectors there")
    parser.add_argument("--encoded", type=int, default=2500, help="passages of each length that are encoded")
    parser.add_argument("--most", type=int, default=10**9, help="skip points with more documents")
    parser.add_argument("--queries", type=int, default=60, help="queries of each kind")
    parser.add_argument("--warm", type=int, default=3, help="rounds before, not counted")
    parser.add_argument("--rounds", type=int, default=8, help="rounds over all queries")
    parser.add_argument("--seconds", type=float, default=20, help="seconds of each rate under load")
    run_benchmark("capacity", parser, measure_capacity, argv)


def measure_capacity(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all points, then one index under load."""
    encoder, points = Settings.read().encoder, [point for point in POINTS if point.documents <= arguments.most]
    texts = {pieces: _encode_texts(encoder, arguments, pieces) for pieces in sorted({point.pieces for point in points})}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        sizes = {point: _fill_index(search, settings, point, texts[point.pieces]) for point in points}
        with run_process(settings, "api") as api:
            queries_of = {point: _title_queries(texts[point.pieces].passages, arguments.queries) for point in points}
            rounds = SearchRounds(settings, search, api.pid, queries_of)
            modes = uvloop.run(rounds.in_turn(arguments.warm, arguments.rounds))
            index, queries = _LOADED_POINT.index, queries_of[_LOADED_POINT]
            under_load = uvloop.run(measure_at_rates(settings, index, queries, arguments.seconds, "hybrid"))
        version = read_opensearch_version(settings)
    results = {point: _make_observed(point, texts[point.pieces], *sizes[point], modes[point]) for point in points}
    for point, observed in results.items():
        print(f"{point.role:>5} {point.index:>16}: {_format_observed(observed)}", flush=True)
    return {
        "opensearch": version,
        "points": [
            {"role": point.role, "index": point.index} | asdict(observed) for point, observed in results.items()
        ],
        "load": {"index": index, "mode": "hybrid", "rates": under_load},
    }


def _encode_texts(encoder: str, arguments: argparse.Namespace, pieces: int) -> EncodedTexts:
    loaded = load_encoder(encoder)
    passages = read_mixed_passages(arguments.folder, arguments.encoded)
    windows = cut_first_windows(loaded, passages, pieces)
    texts = [passage.text[window.start : window.end] for passage, window in zip(passages, windows, strict=True)]
    vectors = load_or_encode_vectors(loaded, windows, arguments.cache)
    encoded = [
        (Document(f"s{number}", text), [EncodedWindow(0, len(text), vector)])
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
    lengths = [len(window.piece_ids) for window in windows]
    words = [len(text.split()) for text in texts]
    return EncodedTexts(passages, encoded, round(fmean(lengths), 1), round(fmean(words), 1))


def _title_queries(passages: Sequence[SourcePassage], count: int) -> list[str]:
    return [text for texts in choose_title_queries(passages, count).values() for text in texts]


def _fill_index(
    search: SyncSearchClient, settings: Settings, point: IndexPoint, texts: EncodedTexts
) -> tuple[int, int]:
    """Create the index; return its bytes, and the bytes that searches read."""
    started = perf_counter()
    generation = create_index(search, settings.model_copy(update={"shards": point.shards}), point.index, PASSAGE_SPEC)
    fill_generation(search, settings, generation, repeat_documents(texts.encoded, point.documents))
    wait_for_merges(search, generation)
    # Merged segments are deleted once no reader and no commit has them; until then an index can be twice as large.
    search.send(refresh_call(generation.physical))
    search.send(Call("POST", f"/{generation.physical}/_flush", params={"force": "true"}))
    print(f"{point.index}: filled in {perf_counter() - started:.0f} s", flush=True)
    return _index_bytes(search, generation)


def _index_bytes(search: SyncSearchClient, generation: Generation) -> tuple[int, int]:
    """Return the bytes of the index, and of the part that searches read."""
    stats = Call("GET", f"/{generation.physical}/_stats/store", params={"filter_path": "_all.primaries"})
    stored = int(search.send(stats)["_all"]["primaries"]["store"]["size_in_bytes"])
    usage = Call("GET", f"/{generation.physical}/_stats/segments", params={"include_segment_file_sizes": "true"})
    sizes = search.send(usage)["_all"]["primaries"]["segments"]["file_sizes"]
    source = sum(int(sizes.get(name, {}).get("size_in_bytes", 0)) for name in _SOURCE_FILE_SUFFIXES)
    everything = sum(int(size["size_in_bytes"]) for size in sizes.values()) or stored
    return stored, round(stored * (1 - source / everything))


@dataclass(frozen=True, slots=True)
class SearchRounds:
    """Rounds over every index in every mode; a machine that is slow for a minute is slow for all of them."""

    settings: Settings
    search: SyncSearchClient
    api: int
    queries: Mapping[IndexPoint, Sequence[str]]

    async def in_turn(self, warm: int, rounds: int) -> dict[IndexPoint, dict[str, dict[str, float]]]:
        """Return milliseconds of a search by index and mode.

        The figures are percentiles of the clock, and processor time of node and API.
        """
        durations: dict[tuple[IndexPoint, str], list[float]] = {
            (point, mode): [] for point in self.queries for mode in MODES
        }
        processor = {key: [0.0, 0.0] for key in durations}
        async with LoopbackConnection(f"http://{self.settings.api_host}:{self.settings.api_port}") as connection:
            for turn in range(-warm, rounds):
                print(f"round {turn + 1} of {rounds}", flush=True)
                for (point, mode), clock in durations.items():
                    before = _node_processor_ms(self.search), process_processor_ms(self.api)
                    clocks = [await self._send(connection, point, mode, query) for query in self.queries[point]]
                    if turn >= 0:
                        clock.extend(clocks)
                        processor[point, mode][0] += _node_processor_ms(self.search) - before[0]
                        processor[point, mode][1] += process_processor_ms(self.api) - before[1]
        results: dict[IndexPoint, dict[str, dict[str, float]]] = {point: {} for point in self.queries}
        for (point, mode), clock in durations.items():
            row, (node, api) = summarise_durations(clock), processor[point, mode]
            costs = {"node": round(node / len(clock), 3), "api": round(api / len(clock), 3)}
            results[point][mode] = {name: row[name] for name in ("p50", "p99", "mean")} | costs
        return results

    async def _send(self, connection: LoopbackConnection, point: IndexPoint, mode: str, query: str) -> float:
        body = orjson.dumps({"query": query, "mode": mode, "did_you_mean": False})
        started = perf_counter()
        await connection.send("POST", f"/v1/indexes/{point.index}/search", body)
        return (perf_counter() - started) * 1000


def _node_processor_ms(search: SyncSearchClient) -> float:
    """Return the processor time of the node's process on this machine; the node's own figure is a second old."""
    nodes = search.send(Call("GET", "/_nodes/process"))["nodes"].values()
    return sum(process_processor_ms(node["process"]["id"]) for node in nodes)


async def measure_at_rates(
    settings: Settings, index: str, queries: Sequence[str], seconds: float, mode: str
) -> list[dict[str, float]]:
    """Return, for each rate, milliseconds from when a query was due to its answer, and the busy share of all cores.

    Queries arrive as a Poisson process, before earlier ones are answered. Everything on the machine counts as busy.
    """
    rows = []
    for rate in RATES_PER_SECOND:
        order = random.Random(rate)
        free: asyncio.Queue[LoopbackConnection] = asyncio.Queue()
        kept = [LoopbackConnection(f"http://{settings.api_host}:{settings.api_port}") for _ in range(_CONNECTIONS)]
        for connection in kept:
            free.put_nowait(await connection.__aenter__())
        durations: list[float] = []

        async def ask(due: float, query: str, free: Any = free, durations: list[float] = durations) -> None:
            connection = await free.get()
            try:
                body = orjson.dumps({"query": query, "mode": mode, "did_you_mean": False})
                await connection.send("POST", f"/v1/indexes/{index}/search", body)
            finally:
                free.put_nowait(connection)
            durations.append((perf_counter() - due) * 1000)

        psutil.cpu_percent()
        started = due = perf_counter()
        pending = set()
        while due < started + seconds:
            await asyncio.sleep(max(0, due - perf_counter()))
            pending.add(asyncio.create_task(ask(due, order.choice(queries))))
            due += order.expovariate(rate)
        busy = psutil.cpu_percent() / 100
        await asyncio.gather(*pending)
        for connection in kept:
            await connection.__aexit__(None, None, None)
        row = {"a_second": rate, "busy": round(busy, 3)} | summarise_durations(durations)
        print(f"{rate:>4} a second: busy {busy:.2f}, p50 {row['p50']:.2f} ms, p99 {row['p99']:.2f} ms", flush=True)
        rows.append(row)
    return rows


def _make_observed(
    point: IndexPoint, texts: EncodedTexts, stored: int, searched: int, modes: Mapping[str, Mapping[str, float]]
) -> ObservedIndex:
    return ObservedIndex(point.documents, texts.pieces, point.shards, texts.words, stored, searched, modes)


def _format_observed(observed: ObservedIndex) -> str:
    hybrid = observed.modes["hybrid"]
    return (
        f"{observed.stored / observed.documents:,.0f} bytes a document "
        f"({observed.searched / observed.documents:,.0f} searched), "
        f"hybrid p50 {hybrid['p50']:.2f} ms, p99 {hybrid['p99']:.2f}, "
        f"processor {hybrid['node']:.2f} + {hybrid['api']:.2f}"
    )
