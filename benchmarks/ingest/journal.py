"""Cost of the journal, and the API's memory while it journals.

    python -m benchmarks journal_cost --json benchmarks/results/journal_cost.json
    python -m benchmarks journal_100k --json benchmarks/results/journal_100k.json

`journal_cost` compares two pipelines, round by round on the same cores (goal: a loss of at most a fifth). With the
journal, documents are posted to the real API, journalled, queued by id, read back, encoded and written. Without it, the
same documents travel in messages to the same workers, which encode them with the same code and write them once; there
is no HTTP and no API process on this side. Both clocks stop with the last encoded document in OpenSearch.

`journal_100k` streams 100,000 documents of 1 KB to a real API process without a worker, and samples its resident memory
ten times a second. An acknowledged document is on disk (translog fsync) and its message in Redis. The slope is that of
the second half of the run, when every pool and cache has its size.

Run as a module, this is the worker of the second pipeline: it also takes messages with documents.
"""

import argparse
import asyncio
import logging
import random
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from statistics import linear_regression, median
from time import perf_counter
from typing import Any

import orjson
import psutil
import uvloop
from celery import Celery

from benchmarks.measuring import make_parser, run_benchmark
from benchmarks.service import (
    LoopbackConnection,
    create_index,
    open_service,
    read_opensearch_version,
    run_process,
    wait_for_writes,
)
from benchmarks.stdlib import STDLIB_SPEC, read_stdlib_documents
from indexer.celery_app import create_celery
from indexer.encode_task import EncodeRun
from indexer.runtime import Runtime, WorkerSettings, load_configured_encoder
from indexer.worker import run_worker, wait_for_redis
from services.documents.document import parse_document
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.errors import BackendUnavailable, Conflict
from services.index_spec import Generation, IndexNames
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import (
    count_states_call,
    create_jobs_call,
    delete_generations_call,
    read_state_counts,
    refresh_call,
)
from services.opensearch.journal import raw_write
from services.queue.lanes import INGEST_QUEUE
from services.settings import Settings

MAX_COST_SHARE = 0.20
UNJOURNALLED_TASK = "benchmark.unjournalled.v1"
UNJOURNALLED_QUEUE = INGEST_QUEUE
_SAMPLE_SECONDS = 0.1
_MAX_SAMPLES = 60
RequestItem = dict[str, Any]
MemorySamples = list[tuple[float, float]]


def journal_cost(argv: list[str] | None = None) -> None:
    """Measure the share of documents per second that the journal costs."""
    parser = make_parser("journal_cost", journal_cost.__doc__)
    parser.add_argument("--documents", type=int, default=1280)
    parser.add_argument("--processes", type=int, default=2, help="worker processes")
    parser.add_argument("--rounds", type=int, default=5)
    run_benchmark("journal_cost", parser, measure_cost, argv)


def measure_cost(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return documents per second of each side by round, and the share that the journal costs."""
    documents = [
        {"id": document.id, "title": document.title, "text": document.text, "metadata": document.metadata}
        for document in read_stdlib_documents(arguments.documents)
    ]
    results: dict[str, list[float]] = {"journalled": [], "unjournalled": []}
    with ExitStack() as stack:
        base = stack.enter_context(open_service())
        settings = base.model_copy(update={"worker_concurrency": arguments.processes})
        search = stack.enter_context(closing(SyncSearchClient(settings)))
        with suppress(Conflict):
            search.send(create_jobs_call(IndexNames(settings.index_prefix), settings))
        stack.enter_context(run_process(settings, "api"))
        command = (sys.executable, "-m", "benchmarks.ingest.journal")
        stack.enter_context(run_process(settings, "worker", command))
        broker = stack.enter_context(Celery(broker=settings.redis_address, set_as_current=False))
        rounds = CostRounds(settings, search, broker, documents)
        sides = {"journalled": rounds.journalled, "unjournalled": rounds.unjournalled}
        print("warming up", flush=True)
        for side in sides.values():
            side()
        for number in range(1, arguments.rounds + 1):
            for name in random.Random(number).sample(list(sides), len(sides)):
                results[name].append(sides[name]())
                print(f"round {number}: {name:>12}: {results[name][-1]:6.1f} documents a second", flush=True)
        version = read_opensearch_version(settings)
    costs = [
        1 - journalled / bare for journalled, bare in zip(results["journalled"], results["unjournalled"], strict=True)
    ]
    cost = round(median(costs), 3)
    print(f"the journal costs {cost:.1%} of the documents a second; goal: at most {MAX_COST_SHARE:.0%}")
    return {
        "opensearch": version,
        "documents": len(documents),
        "encoder": settings.encoder,
        "median": {name: round(median(values), 2) for name, values in results.items()},
        "rounds": {name: [round(value, 2) for value in values] for name, values in results.items()},
        "cost": cost,
        "cost_by_round": [round(value, 3) for value in costs],
        "target": {"cost": MAX_COST_SHARE, "reached": cost <= MAX_COST_SHARE},
    }


class CostRounds:
    """Rounds of both pipelines through one worker."""

    def __init__(
        self, settings: Settings, search: SyncSearchClient, broker: Celery, documents: list[RequestItem]
    ) -> None:
        self._settings, self._search, self._broker, self._documents = settings, search, broker, documents
        self._rate = 50.0
        self._count = 0

    def journalled(self) -> float:
        """Return the documents per second of the service."""
        return self._round(self._post, writes=2)

    def unjournalled(self) -> float:
        """Return the documents per second without the journal."""
        return self._round(self._publish, writes=1)

    def _round(self, send: Any, *, writes: int) -> float:
        self._count += 1
        generation = create_index(self._search, self._settings, f"round{self._count}", STDLIB_SPEC)
        time.sleep(1)
        started = time.monotonic()
        send(generation.index)
        wait_for_writes(self._search, generation, writes * len(self._documents), self._rate)
        seconds = time.monotonic() - started
        self._check(generation)
        self._rate = len(self._documents) / seconds
        return self._rate

    def _post(self, index: str) -> None:
        async def send() -> None:
            async with LoopbackConnection(f"http://{self._settings.api_host}:{self._settings.api_port}") as connection:
                for at in range(0, len(self._documents), 500):
                    body = b"\n".join(map(orjson.dumps, self._documents[at : at + 500]))
                    await connection.send("POST", f"/v1/indexes/{index}/documents", body, "application/x-ndjson")

        uvloop.run(send())

    def _publish(self, index: str) -> None:
        step = self._settings.message_documents
        for at in range(0, len(self._documents), step):
            body = {"index": index, "documents": self._documents[at : at + step]}
            self._broker.send_task(
                UNJOURNALLED_TASK, kwargs=body, queue=UNJOURNALLED_QUEUE, ignore_result=True, kwargsrepr="{...}"
            )

    def _check(self, generation: Generation) -> None:
        self._search.send(refresh_call(generation.physical))
        states = read_state_counts(self._search.send(count_states_call(generation.physical)))
        if states["encoded"] != len(self._documents):
            raise BackendUnavailable("benchmark_failed", f"Not every document was encoded: {states}.")
        self._search.send(delete_generations_call([generation]))


@dataclass
class UnjournalledRun(EncodeRun):
    """Run of the encode task that finds its documents in the message."""

    documents: Sequence[dict[str, Any]] = field(default=())

    def _read(self, ids: Sequence[str]) -> dict[str, object]:
        answers = []
        for item in self.documents:
            document = parse_document(item, self.generation.spec)
            raw = raw_write(self.generation, document, "benchmark", 1, self.runtime.settings.lease_seconds)
            answers.append({"_id": raw.id, "_version": raw.version, "_source": raw.source, "found": True})
        return {"docs": answers}


def create_worker(settings: Settings, worker: WorkerSettings) -> Celery:
    """Return the service's Celery application with the task of the comparison."""
    app = create_celery(settings, worker)
    runtime = Runtime(settings, worker, load_configured_encoder)

    @app.task(name=UNJOURNALLED_TASK, typing=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def unjournalled(index: str, documents: list[dict[str, Any]]) -> None:
        generation = runtime.generation(index)
        runtime.check_encoder(generation)
        run = UnjournalledRun(runtime, generation, redelivered=False, documents=documents)
        run.run([document["id"] for document in documents])

    return app


def unjournalled_worker() -> None:
    """Run the worker of the comparison."""
    logging.basicConfig(level=logging.INFO)
    settings, times = Settings.read(), WorkerSettings.read()
    wait_for_redis(settings.redis_address, times.redis_wait)
    sys.exit(
        run_worker(
            create_worker(settings, times), settings, read_manifest(resolve_model_directory(settings.encoder)), "info"
        )
    )


def journal_100k(argv: list[str] | None = None) -> None:
    """Measure documents per second and the API's memory while 100,000 documents are journalled."""
    parser = make_parser("journal_100k", journal_100k.__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=1024, help="bytes of a document as JSON")
    parser.add_argument("--stream", type=int, default=5000, help="documents of an NDJSON request")
    parser.add_argument("--connections", type=int, default=4)
    run_benchmark("journal_100k", parser, measure_100k, argv)


def measure_100k(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return documents per second, and the memory of the API process."""
    chance = random.Random(1)
    words = sorted(
        {word for document in read_stdlib_documents(500) for word in document.text.split() if word.isalpha()}
    )
    lines = [make_line(number, arguments.bytes, words, chance) for number in range(arguments.documents)]
    streams = [b"".join(lines[at : at + arguments.stream]) for at in range(0, len(lines), arguments.stream)]
    del lines
    with open_service() as settings, run_process(settings, "api") as api:
        accepted, seconds, samples = uvloop.run(measure_run(settings, streams, arguments.connections, api.pid))
        version = read_opensearch_version(settings)
    if accepted != arguments.documents:
        raise RuntimeError(f"{accepted} of {arguments.documents} documents were accepted")
    memory = summarise_memory(samples, accepted, seconds)
    print(
        f"{accepted:,} documents, {accepted / seconds:,.0f} a second; MiB of the API: {memory | {'over_time': '...'}}"
    )
    return {
        "opensearch": version,
        "documents": accepted,
        "megabytes": round(sum(map(len, streams)) / 1e6, 1),
        "seconds": round(seconds, 2),
        "documents_a_second": round(accepted / seconds, 1),
        "rss_mib": memory,
    }


def make_line(number: int, size: int, words: Sequence[str], chance: random.Random) -> bytes:
    """Return a document of exactly `size` bytes with its line break, made of real words."""
    empty = len(orjson.dumps({"id": f"d{number:07d}", "text": ""})) + 1
    text = ""
    while len(text) < size - empty:
        text += chance.choice(words) + " "
    return orjson.dumps({"id": f"d{number:07d}", "text": text[: size - empty - 1] + "."}) + b"\n"


async def measure_run(
    settings: Settings, streams: list[bytes], connections: int, api: int
) -> tuple[int, float, MemorySamples]:
    """Return documents, seconds and memory samples of one run into a new index."""
    samples: MemorySamples = []
    async with LoopbackConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:
        await connection.send("PUT", "/v1/indexes/docs", b"{}")
    watching = asyncio.create_task(sample_memory(psutil.Process(api), samples))
    await asyncio.sleep(5 * _SAMPLE_SECONDS)
    started = perf_counter()
    accepted = await journal_streams(settings, streams, connections)
    seconds = perf_counter() - started
    watching.cancel()
    return accepted, seconds, samples


async def journal_streams(settings: Settings, streams: list[bytes], connections: int) -> int:
    """Send the streams over `connections` connections; return the number of accepted documents."""
    waiting = iter(streams)
    accepted = 0

    async def sender() -> None:
        nonlocal accepted
        async with LoopbackConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:
            for body in waiting:
                answer = await connection.send("POST", "/v1/indexes/docs/documents", body, "application/x-ndjson")
                if "stopped" in answer or not answer["queued"]:
                    raise RuntimeError(f"a stream was not accepted completely: {answer.get('stopped')}")
                accepted += len(answer["accepted"])

    await asyncio.gather(*(sender() for _ in range(connections)))
    return accepted


async def sample_memory(process: psutil.Process, samples: MemorySamples) -> None:
    """Append seconds and MiB of resident memory until cancelled."""
    started = perf_counter()
    while True:
        samples.append((perf_counter() - started, process.memory_info().rss / 1024**2))
        await asyncio.sleep(_SAMPLE_SECONDS)


def summarise_memory(samples: MemorySamples, documents: int, seconds: float) -> dict[str, Any]:
    """Return MiB at the start, at most and at the end, and the slope per minute and per 10,000 documents."""
    later = [sample for sample in samples if sample[0] >= samples[-1][0] / 2]
    slope = linear_regression([at for at, _ in later], [size for _, size in later]).slope
    step = max(1, len(samples) // _MAX_SAMPLES)
    return {
        "start": round(samples[0][1], 1),
        "max": round(max(size for _, size in samples), 1),
        "end": round(samples[-1][1], 1),
        "slope_a_minute": round(slope * 60, 2),
        "slope_for_10000_documents": round(slope * seconds / documents * 10_000, 3),
        "over_time": [[round(at, 1), round(size, 1)] for at, size in samples[::step]],
    }


if __name__ == "__main__":
    unjournalled_worker()
