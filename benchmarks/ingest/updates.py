"""Fairness and updates: single writes during a load, changes of metadata, and the sweeper's pass over idle indexes.

    python -m benchmarks interactive_writes --json benchmarks/results/interactive_writes.json
    python -m benchmarks metadata_updates --json benchmarks/results/metadata_updates.json
    python -m benchmarks window_updates --json benchmarks/results/window_updates.json
    python -m benchmarks sweeper_pass --json benchmarks/results/sweeper_pass.json

`interactive_writes`: documents are loaded into one index, alone and then beside single writes to another index, one a
second. The time of a single write runs from the request to the first search by meaning that finds the document. The
load is timed to its last encoded document. API, worker, OpenSearch and Redis share the cores.

`metadata_updates`: all documents of an encoded index are sent again with other metadata, as NDJSON.

`window_updates`: one small request changes the text of documents with many stored windows. As `body_shapes` does, it
reports how long other requests wait and the memory that the API takes.

`sweeper_pass`: one pass of each task of the sweeper over many indexes without work.
"""

import argparse
import asyncio
import time
from contextlib import closing
from statistics import median, quantiles
from typing import Any

import orjson
import uvloop

from benchmarks.ingest.body_shapes import INDEX_PATH, BodyShape, create_shape_indexes, measure_body
from benchmarks.measuring import make_parser, run_benchmark
from benchmarks.service import (
    LoopbackConnection,
    create_index,
    open_service,
    read_opensearch_version,
    run_process,
)
from benchmarks.stdlib import read_stdlib_documents
from indexer.retention import RetentionCleanup
from indexer.sweeper import MappingUpgrade, QueueHead, Sweeper
from services.documents.document import Document, encoded_version
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.encoders.vectors import SparseVector
from services.index_spec import Generation
from services.opensearch.bulk import Write, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import count_states_call, read_state_counts, refresh_call
from services.queue.lanes import encode_queues
from services.queue.messages import Publisher
from services.settings import Settings

_BATCH = 500
_POLL_SECONDS = 0.05
_WAIT_SECONDS = 1800.0


def interactive_writes(argv: list[str] | None = None) -> None:
    """Measure single writes beside a load, and the load beside single writes."""
    parser = make_parser("interactive_writes", interactive_writes.__doc__)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two single writes")
    run_benchmark("interactive_writes", parser, measure_interactive_writes, argv)


def measure_interactive_writes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the times of single writes, and both times of the load."""
    with (
        open_service() as settings,
        run_process(settings, "worker"),
        run_process(settings, "api"),
        closing(SyncSearchClient(settings)) as search,
    ):
        load = _lines(arguments.documents)
        # The first load also warms OpenSearch and the worker.
        uvloop.run(_load(settings, search, "warm", _lines(1000)))
        alone = uvloop.run(_load(settings, search, "alone", load))
        beside, singles = uvloop.run(_load_with_singles(settings, search, load, arguments.interval))
        version = read_opensearch_version(settings)
    cuts = quantiles(singles, n=20)
    return {
        "opensearch": version,
        "documents": arguments.documents,
        "load_alone_seconds": round(alone, 1),
        "load_beside_seconds": round(beside, 1),
        "load_ratio": round(alone / beside, 3),
        "single_writes": len(singles),
        "searchable_p50_seconds": round(median(singles), 2),
        "searchable_p95_seconds": round(cuts[18], 2),
        "searchable_max_seconds": round(max(singles), 2),
    }


def _lines(count: int) -> list[bytes]:
    """Return documents of the standard library as NDJSON. Beyond their number they are repeated with other ids."""
    documents = read_stdlib_documents(min(count, 5000))
    return [
        orjson.dumps({"id": f"{at}-{document.id}"[:500], "title": document.title, "text": document.text}) + b"\n"
        for at, document in ((at, documents[at % len(documents)]) for at in range(count))
    ]


def _connect(settings: Settings) -> LoopbackConnection:
    return LoopbackConnection(f"http://{settings.api_host}:{settings.api_port}")


async def _load(settings: Settings, search: SyncSearchClient, index: str, lines: list[bytes]) -> float:
    """Load documents into a new index. Return the seconds until all are encoded."""
    async with _connect(settings) as connection:
        await connection.send("PUT", f"/v1/indexes/{index}", b"{}")
        physical = f"{settings.index_prefix}-{index}.g000001"
        began = time.monotonic()
        for at in range(0, len(lines), _BATCH):
            path = f"/v1/indexes/{index}/documents"
            await connection.send("POST", path, b"".join(lines[at : at + _BATCH]), "application/x-ndjson")
        await asyncio.to_thread(_wait_until_encoded, search, physical, len(lines))
        return time.monotonic() - began


def _wait_until_encoded(search: SyncSearchClient, physical: str, count: int) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while read_state_counts(search.send(count_states_call(physical)))["encoded"] < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{physical} is not encoded after {_WAIT_SECONDS:.0f} s")
        time.sleep(0.5)


async def _load_with_singles(
    settings: Settings, search: SyncSearchClient, lines: list[bytes], interval: float
) -> tuple[float, list[float]]:
    """Load documents and write single ones beside. Return the seconds of the load and of each single write."""
    async with _connect(settings) as connection:
        await connection.send("PUT", "/v1/indexes/single", orjson.dumps({"fields": {"number": "number"}}))
    loading = asyncio.create_task(_load(settings, search, "beside", lines))
    writes: list[asyncio.Task[float]] = []
    while not loading.done():
        writes.append(asyncio.create_task(_write_one(settings, len(writes))))
        await asyncio.wait({loading}, timeout=interval)
    return await loading, list(await asyncio.gather(*writes))


async def _write_one(settings: Settings, number: int) -> float:
    """Write one document. Return the seconds until search by meaning finds it."""
    async with _connect(settings) as connection:
        began = time.monotonic()
        body = orjson.dumps(
            {"text": f"The lighthouse keeper number {number} repairs the lamp.", "metadata": {"number": number}}
        )
        await connection.send("PUT", f"/v1/indexes/single/documents/d{number}", body)
        wanted = {"query": "lighthouse lamp", "mode": "sparse", "filter": {"field": "number", "is": number}, "size": 1}
        while True:
            answer = await connection.send("POST", "/v1/indexes/single/search", orjson.dumps(wanted))
            if answer["hits"]:
                return time.monotonic() - began
            await asyncio.sleep(_POLL_SECONDS)


def metadata_updates(argv: list[str] | None = None) -> None:
    """Measure changes of metadata alone, in documents a second."""
    parser = make_parser("metadata_updates", metadata_updates.__doc__)
    parser.add_argument("--documents", type=int, default=5000)
    # OpenSearch compiles its code while it runs: the first round reaches half the speed of the tenth.
    parser.add_argument("--rounds", type=int, default=20)
    run_benchmark("metadata_updates", parser, measure_metadata_updates, argv)


def measure_metadata_updates(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the documents a second of each round in order, their median, and the messages that they sent (0)."""
    documents = read_stdlib_documents(arguments.documents)
    spec = orjson.dumps({"fields": {"round": "number"}})
    with open_service() as settings, run_process(settings, "api"), closing(SyncSearchClient(settings)) as search:
        physical = f"{settings.index_prefix}-updates.g000001"
        with run_process(settings, "worker"):
            uvloop.run(_send_round(settings, documents, 0, spec))
            search.send(refresh_call(physical))
            _wait_until_encoded(search, physical, len(documents))
        seconds = [
            uvloop.run(_send_round(settings, documents, number, spec)) for number in range(1, arguments.rounds + 1)
        ]
        search.send(refresh_call(physical))
        counts = read_state_counts(search.send(count_states_call(physical)))
        if counts["encoded"] != len(documents):
            raise RuntimeError(f"documents by state after the updates: {counts}")
        with closing(Publisher(settings.redis_address)) as publisher:
            messages = publisher.depth(*encode_queues(settings.encoder))
        version = read_opensearch_version(settings)
    rates = [round(len(documents) / each) for each in seconds]
    return {
        "opensearch": version,
        "documents": len(documents),
        "documents_a_second": {"median": round(median(rates)), "rounds": rates},
        "messages": messages,
    }


async def _send_round(settings: Settings, documents: list[Document], number: int, spec: bytes) -> float:
    async with _connect(settings) as connection:
        await connection.send("PUT", "/v1/indexes/updates", spec)
        lines = [
            orjson.dumps({"id": doc.id, "title": doc.title, "text": doc.text, "metadata": {"round": number}}) + b"\n"
            for doc in documents
        ]
        began = time.monotonic()
        for at in range(0, len(lines), _BATCH):
            body = b"".join(lines[at : at + _BATCH])
            await connection.send("POST", "/v1/indexes/updates/documents", body, "application/x-ndjson")
        return time.monotonic() - began


def window_updates(argv: list[str] | None = None) -> None:
    """Measure one request that changes the text of documents with many windows."""
    parser = make_parser("window_updates", window_updates.__doc__)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--windows", type=int, default=1200, help="windows of a document")
    parser.add_argument("--repeats", type=int, default=3)
    run_benchmark("window_updates", parser, measure_window_updates, argv)


def measure_window_updates(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the longest wait of other requests, and the memory that the API takes. See `body_shapes.measure_body`."""
    changed = [{"id": f"d{number}", "text": "new"} for number in range(arguments.documents)]
    shape: BodyShape = (f"{INDEX_PATH}/documents", "application/json", lambda _: orjson.dumps(changed))
    with (
        open_service() as settings,
        run_process(settings, "api") as api,
        closing(SyncSearchClient(settings)) as search,
    ):
        uvloop.run(create_shape_indexes(settings))
        _store_windows(settings, search, arguments.documents, arguments.windows)
        cost = uvloop.run(measure_body(settings, api.pid, shape, 0, arguments.repeats))
        version = read_opensearch_version(settings)
    return {"opensearch": version, "documents": arguments.documents, "windows": arguments.windows, **cost}


def _store_windows(settings: Settings, search: SyncSearchClient, documents: int, windows: int) -> None:
    """Store encoded documents `d0`, `d1`, ... of about 870 characters a window, with 100 weights a window."""
    vector = SparseVector.of(list(range(100)), [1.0] * 100).pack()
    source = {
        "text": "The lighthouse keeper repairs the lamp. " * (22 * windows),
        "state": "encoded",
        "version": 1,
        "encoder": read_manifest(resolve_model_directory(settings.encoder)).fingerprint,
        "windows": [{"start": number, "end": number + 1, "vector": vector} for number in range(windows)],
    }
    alias = f"{settings.index_prefix}-{INDEX_PATH.rpartition('/')[2]}"
    for number in range(documents):
        write_bulk(search, [Write(alias, f"d{number}", encoded_version(1), source)], 4 * 1024**2, 60)


def sweeper_pass(argv: list[str] | None = None) -> None:
    """Measure one pass of the sweeper over idle indexes."""
    parser = make_parser("sweeper_pass", sweeper_pass.__doc__)
    parser.add_argument("--indexes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    run_benchmark("sweeper_pass", parser, measure_sweeper_pass, argv)


def measure_sweeper_pass(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the median seconds of each task over the indexes, and their sum."""
    with (
        open_service() as base,
        closing(SyncSearchClient(settings := base.model_copy(update={"shards": 1, "replicas": 0}))) as search,
        closing(Publisher(settings.redis_address)) as publisher,
    ):
        search.send(Call("PUT", "/_cluster/settings", b'{"persistent":{"cluster.max_shards_per_node":10000}}'))
        generations: list[Generation] = []
        for number in range(arguments.indexes):
            generations.append(create_index(search, settings, f"idle-{number}"))
            if number % 100 == 99:
                print(f"{number + 1} indexes", flush=True)
        sweeper, upgrade = Sweeper(settings, search, publisher), MappingUpgrade(settings, search)
        upgrade.add()
        cleanup = RetentionCleanup(settings, search)
        tasks = {"adding fields": upgrade.add, "sweeping": sweeper.sweep, "removing what has expired": cleanup.remove}
        watched = {queue: QueueHead(0.0) for queue in encode_queues(settings.encoder)}
        sweeper.heads = watched
        seconds: dict[str, list[float]] = {name: [] for name in tasks}
        for _ in range(arguments.rounds):
            for name, task in tasks.items():
                began = time.monotonic()
                task()
                seconds[name].append(time.monotonic() - began)
        version = read_opensearch_version(settings)
    medians = {name: round(median(times), 3) for name, times in seconds.items()}
    return {
        "opensearch": version,
        "indexes": len(generations),
        "seconds": medians,
        "sum": round(sum(medians.values()), 3),
    }
