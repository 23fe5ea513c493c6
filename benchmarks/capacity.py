"""What does a search and a document cost, by the size of the index? The coefficients of `sparsewell plan`.

    python -m benchmarks.capacity FOLDER --cache CACHE --json benchmarks/results/capacity.json

FOLDER holds texts that are not part of the project (see benchmarks.passages). Indexes of several sizes, lengths of
document and numbers of shards are filled one after the other; each is searched through the API process, one question
at a time. Disk, milliseconds of the clock and of the processor are fitted (cli.planning.fit) on the points that are
named `fit`; the points named `check` are predicted by them, and the errors are told. Last, one index is asked at
several rates with more than one question under way, which the formula for waiting is held against.
"""

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import orjson
import uvloop

from benchmarks.capacity_load import at_rates
from benchmarks.filled_index import Encoded, create, fill
from benchmarks.large_index import SPEC, repeated
from benchmarks.loopback import KeptConnection
from benchmarks.passages import Passage, cached_vectors, first_windows, passages
from benchmarks.processor import process_ms
from benchmarks.record import command_line, run
from benchmarks.segments import settle
from benchmarks.service import node_settings, opensearch_version, running
from benchmarks.sparse_vs_match import title_queries
from benchmarks.timing import spread
from cli.planning.fit import MODES, Observed, errors, fitted
from models.registry import load_encoder
from services.documents import Document
from services.index_spec import Generation
from services.opensearch.client import Call, SyncSearch
from services.opensearch.stored_windows import EncodedWindow
from services.settings import Settings

# Files of what is only shown (`_source`): no search reads them but for its hits, and a page cache need not hold them.
_SHOWN = ("fdt", "fdx", "fdm")


@dataclass(frozen=True, slots=True)
class Point:
    """One index. `role`: whether coefficients are fitted on it, or held against it."""

    role: str
    documents: int
    pieces: int
    shards: int = 1

    @property
    def index(self) -> str:
        return f"d{self.documents}p{self.pieces}s{self.shards}"


POINTS = (
    Point("fit", 10_000, 64),
    Point("fit", 40_000, 64),
    Point("fit", 120_000, 64),
    Point("fit", 40_000, 192),
    Point("fit", 40_000, 64, shards=4),
    Point("check", 80_000, 64),
    Point("check", 80_000, 64, shards=2),
    Point("check", 40_000, 128),
    Point("check", 240_000, 64),
)


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """All points, the fit, its errors, and the index under load."""
    encoder, points = Settings.read().encoder, [point for point in POINTS if point.documents <= given.most]
    texts = {pieces: _texts(encoder, given, pieces) for pieces in sorted({point.pieces for point in points})}
    found: dict[Point, Observed] = {}
    with node_settings() as base:
        for point in points:
            some, queries = texts[point.pieces], _queries(texts[point.pieces].passages, given.queries)
            settings = base.model_copy(update={"shards": point.shards})
            if not found:  # a Java process is fast only after thousands of the same request
                _point(point, settings, some, queries, given.warm)
            found[point] = _point(point, settings, some, queries, given.rounds)
            print(f"{point.role:>5} {point.index:>16}: {_said(found[point])}", flush=True)
        coefficients = fitted([one for point, one in found.items() if point.role == "fit"])
        under_load = _load(base, texts[64], given)
        version = opensearch_version(base)
    checks = {point.index: errors(coefficients, one) for point, one in found.items() if point.role == "check"}
    for name, row in checks.items():
        print(f"check {name:>16}: predicted over measured {row}", flush=True)
    return {
        "opensearch": version,
        "points": [asdict(point) | asdict(one) for point, one in found.items()],
        "coefficients": asdict(coefficients),
        "predicted_over_measured": checks,
        "load": under_load,
    }


@dataclass(frozen=True, slots=True)
class Texts:
    """Passages cut to a length, as documents with their vectors, and how long they are on average."""

    passages: Sequence[Passage]
    encoded: Sequence[Encoded]
    pieces: float
    words: float


def _texts(encoder: str, given: argparse.Namespace, pieces: int) -> Texts:
    loaded = load_encoder(encoder)
    found = passages(given.folder, given.encoded)
    windows = first_windows(loaded, found, pieces)
    texts = [one.text[window.start : window.end] for one, window in zip(found, windows, strict=True)]
    vectors = cached_vectors(loaded, windows, given.cache)
    encoded = [
        (Document(f"s{number}", text), [EncodedWindow(0, len(text), vector)])
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
    lengths = [len(window.piece_ids) for window in windows]
    words = [len(text.split()) for text in texts]
    return Texts(found, encoded, round(fmean(lengths), 1), round(fmean(words), 1))


def _queries(found: Sequence[Passage], count: int) -> list[str]:
    return [text for texts in title_queries(found, count).values() for text in texts]


def _point(point: Point, settings: Settings, some: Texts, queries: Sequence[str], rounds: int) -> Observed:
    with closing(SyncSearch(settings)) as search:
        generation = create(search, settings, point.index, SPEC)
        fill(search, settings, generation, repeated(some.encoded, point.documents))
        settle(search, generation)
        stored, searched = _bytes(search, generation)
        with running(settings, "api") as api:
            modes = {
                mode: uvloop.run(_asked(settings, point.index, mode, queries, rounds, api.pid, search))
                for mode in MODES
            }
        search.send(Call("DELETE", f"/{generation.physical}"))
    return Observed(point.documents, some.pieces, point.shards, some.words, stored, searched, modes)


def _bytes(search: SyncSearch, generation: Generation) -> tuple[int, int]:
    """Of the whole index, and of what searches read of it."""
    stats = Call("GET", f"/{generation.physical}/_stats/store", params={"filter_path": "_all.primaries"})
    stored = int(search.send(stats)["_all"]["primaries"]["store"]["size_in_bytes"])
    usage = Call("GET", f"/{generation.physical}/_stats/segments", params={"include_segment_file_sizes": "true"})
    sizes = search.send(usage)["_all"]["primaries"]["segments"]["file_sizes"]
    shown = sum(int(sizes.get(name, {}).get("size_in_bytes", 0)) for name in _SHOWN)
    everything = sum(int(one["size_in_bytes"]) for one in sizes.values()) or stored
    return stored, round(stored * (1 - shown / everything))


async def _asked(
    settings: Settings, index: str, mode: str, queries: Sequence[str], rounds: int, api: int, search: SyncSearch
) -> dict[str, float]:
    """Milliseconds of a search: the clock's percentiles, and the processor's of the node and of the API process."""
    took: list[float] = []
    async with KeptConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:
        for turn in range(rounds + 1):
            if turn == 1:  # the first round warms what is cached and compiled
                before = _node_ms(search), process_ms(api)
            for query in queries:
                begun = perf_counter()
                body = {"query": query, "mode": mode, "did_you_mean": False}
                await connection.send("POST", f"/v1/indexes/{index}/search", orjson.dumps(body))
                if turn:
                    took.append((perf_counter() - begun) * 1000)
    calls = rounds * len(queries)
    clock = spread(took)
    return {
        "p50": clock["p50"],
        "p99": clock["p99"],
        "mean": clock["mean"],
        "node": round((_node_ms(search) - before[0]) / calls, 3),
        "api": round((process_ms(api) - before[1]) / calls, 3),
    }


def _node_ms(search: SyncSearch) -> float:
    """Of the node's process, which runs on this machine: its own figure is up to a second old."""
    nodes = search.send(Call("GET", "/_nodes/process"))["nodes"].values()
    return sum(process_ms(node["process"]["id"]) for node in nodes)


def _said(one: Observed) -> str:
    hybrid = one.modes["hybrid"]
    return (
        f"{one.stored / one.documents:,.0f} bytes a document ({one.searched / one.documents:,.0f} searched), "
        f"hybrid p50 {hybrid['p50']:.2f} ms, p99 {hybrid['p99']:.2f}, "
        f"processor {hybrid['node']:.2f} + {hybrid['api']:.2f}"
    )


def _load(settings: Settings, some: Texts, given: argparse.Namespace) -> Any:
    with closing(SyncSearch(settings)) as search:
        generation = create(search, settings, "load", SPEC)
        fill(search, settings, generation, repeated(some.encoded, 40_000))
        settle(search, generation)
    with running(settings, "api"):
        return uvloop.run(at_rates(settings, "load", _queries(some.passages, given.queries), given.seconds, "hybrid"))


def main(given: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("capacity", __doc__)
    parser.add_argument("folder", type=Path, help="holds wikipedia_lead.jsonl.gz and the others")
    parser.add_argument("--cache", type=Path, help="keeps the vectors there")
    parser.add_argument("--encoded", type=int, default=2500, help="passages of each length that are encoded")
    parser.add_argument("--most", type=int, default=10**9, help="points of more documents are left out")
    parser.add_argument("--queries", type=int, default=100, help="of each kind")
    parser.add_argument("--warm", type=int, default=8, help="rounds before, which nobody counts")
    parser.add_argument("--rounds", type=int, default=4, help="times that every query is asked")
    parser.add_argument("--seconds", type=float, default=20, help="of each rate under load")
    run("capacity", parser, measured, given)


if __name__ == "__main__":
    main()
