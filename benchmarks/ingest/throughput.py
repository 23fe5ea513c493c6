"""Documents per second: as the API acknowledges them, through a worker, and of the bare model.

    python -m benchmarks ingest_throughput --json benchmarks/results/ingest_throughput.json
    python -m benchmarks worker_pipeline --json benchmarks/results/worker_pipeline.json

`ingest_throughput`: one client sends NDJSON with 500 documents a request. An acknowledged document is on disk (translog
fsync) and its message in Redis; no worker runs.

`worker_pipeline`: the documents are in the journal; the clock runs from the first message to the last encoded document
in OpenSearch. Celery worker, Redis and node share the cores. Bare: the model alone on the windows of the same texts,
cut and batched before, in as many processes with one thread each, and in one session with as many threads. Rounds take
turns.
"""

import argparse
import multiprocessing
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from statistics import median
from time import monotonic, perf_counter, process_time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import orjson
import psutil
import uvloop

from benchmarks.measuring import make_parser, run_benchmark
from benchmarks.service import (
    LoopbackConnection,
    create_index,
    encode_documents,
    fill_generation,
    journal_documents,
    open_service,
    read_opensearch_version,
    run_process,
    wait_for_writes,
)
from benchmarks.stdlib import STDLIB_SPEC, read_stdlib_documents
from indexer.encoding import WindowedDocument, cut_windows, group_into_runs
from models.onnx_encoder import OnnxSparseEncoder, batch_by_length
from models.registry import load_encoder
from services.documents.document import Document
from services.errors import BackendUnavailable
from services.index_spec import Generation
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import count_states_call, delete_generations_call, read_state_counts, refresh_call
from services.opensearch.stored_document import StoredDocument
from services.queue.messages import EncodeMessage, Publisher
from services.settings import Settings

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized


# Rows of piece ids for one run of the model.
IdBatch = list[tuple[int, ...]]
TARGET_RATIO = 0.95
# The node took 1.4 ms of processor time per document after 12,800 writes, and 1.0 ms after 76,800.
_WARM_UP_INDEXES, _WARM_UP_WRITES = 8, 76_800


def ingest_throughput(argv: list[str] | None = None) -> None:
    """Measure the documents per second that POST /documents acknowledges."""
    parser = make_parser("ingest_throughput", ingest_throughput.__doc__)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    run_benchmark("ingest_throughput", parser, measure_documents, argv)


def measure_documents(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the median of the rounds, and all rounds."""
    documents = read_stdlib_documents(arguments.documents)
    with open_service() as settings, run_process(settings, "api"):
        rounds = uvloop.run(ingest_rounds(settings, documents, arguments.batch, arguments.rounds))
        version = read_opensearch_version(settings)
    rounds.sort(key=lambda row: row["documents_a_second"])
    return {
        "opensearch": version,
        "documents": len(documents),
        "median": {name: round(value, 2) for name, value in rounds[len(rounds) // 2].items()},
        "rounds": [{name: round(value, 2) for name, value in row.items()} for row in rounds],
    }


async def ingest_rounds(
    settings: Settings, documents: list[Document], batch: int, rounds: int
) -> list[dict[str, float]]:
    """Return documents and bytes per second of each round into a new index; the first round is not counted."""
    lines = [
        orjson.dumps({"id": doc.id, "title": doc.title, "text": doc.text, "metadata": doc.metadata}) + b"\n"
        for doc in documents
    ]
    bodies = [b"".join(lines[at : at + batch]) for at in range(0, len(lines), batch)]
    results = []
    async with LoopbackConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:
        for number in range(rounds + 1):
            path = f"/v1/indexes/round{number}"
            await connection.send("PUT", path, orjson.dumps({"fields": STDLIB_SPEC.fields}))
            started = perf_counter()
            accepted = 0
            for body in bodies:
                answer = await connection.send("POST", f"{path}/documents", body, "application/x-ndjson")
                accepted += len(answer["accepted"])
            seconds = perf_counter() - started
            if accepted != len(documents):
                raise RuntimeError(f"{accepted} of {len(documents)} documents were accepted")
            if number:
                megabytes = sum(map(len, bodies)) / 1e6
                results.append({"documents_a_second": accepted / seconds, "megabytes_a_second": megabytes / seconds})
                print(f"round {number}: {accepted / seconds:,.0f} documents a second", flush=True)
    return results


def worker_pipeline(argv: list[str] | None = None) -> None:
    """Compare documents per second of a worker and of the model alone."""
    parser = make_parser("worker_pipeline", worker_pipeline.__doc__)
    parser.add_argument("--documents", type=int, default=2560)
    parser.add_argument("--processes", type=int, default=2, help="cores of each side")
    parser.add_argument("--rounds", type=int, default=4)
    run_benchmark("worker_pipeline", parser, measure_pipeline, argv)


def measure_pipeline(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return documents per second of each side by round, and the ratio to the faster bare side."""
    documents = read_stdlib_documents(arguments.documents)
    with ExitStack() as stack:
        base = stack.enter_context(open_service())
        settings = base.model_copy(update={"worker_concurrency": arguments.processes, "worker_threads": 1})
        encoder = load_encoder(settings.encoder, threads=1)
        if not isinstance(encoder, OnnxSparseEncoder):
            raise BackendUnavailable("no_onnx_model", f"{settings.encoder} has no ONNX model to compare with.")
        messages = make_message_batches(encoder, documents, settings.message_documents)
        search = stack.enter_context(closing(SyncSearchClient(settings)))
        worker = stack.enter_context(run_process(settings, "worker"))
        pipeline = WorkerPipeline(settings, search, documents, worker.pid)
        several = f"bare, {arguments.processes} processes of 1 thread"
        single = f"bare, 1 process of {arguments.processes} threads"
        sides: dict[str, WorkerPipeline | BareSessions] = {
            "pipeline": pipeline,
            several: stack.enter_context(BareSessions(settings.encoder, messages, arguments.processes, 1)),
            single: stack.enter_context(BareSessions(settings.encoder, messages, 1, arguments.processes)),
        }
        print("warming up the node", flush=True)
        warm_up(settings, search, encoder, documents[: settings.message_documents])
        # Worker processes load their encoder with the first message, and the JVM compiles the code of their writes:
        # a first round was 5 to 10 % slower than later ones.
        pipeline.run()
        results: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for number in range(1, arguments.rounds + 1):
            for name in random.Random(number).sample(list(sides), len(sides)):
                seconds, cpu = sides[name].run()
                results[name].append(
                    {
                        "documents_a_second": len(documents) / seconds,
                        "processor_ms_a_document": cpu / len(documents) * 1e3,
                    }
                )
                print(f"round {number}: {name:>30}: {len(documents) / seconds:6.1f} documents a second", flush=True)
        node = median(pipeline.node_seconds[-arguments.rounds :]) / len(documents) * 1e3
        version = read_opensearch_version(settings)
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "documents": len(documents),
        "windows": sum(len(batch) for message in messages for batch in message),
        "pieces": sum(len(row) for message in messages for batch in message for row in batch),
        "batch_pieces": encoder.batch_pieces,
        "message_documents": settings.message_documents,
        "node_processor_ms_a_document": round(node, 2),
        **_summarise_rounds(results, several, single),
    }


def _summarise_rounds(results: dict[str, list[dict[str, float]]], several: str, single: str) -> dict[str, Any]:
    middle = {
        name: {key: round(median(figures[key] for figures in rounds), 2) for key in rounds[0]}
        for name, rounds in results.items()
    }
    ratios = {
        name: [
            round(worker["documents_a_second"] / bare["documents_a_second"], 3)
            for worker, bare in zip(results["pipeline"], results[name], strict=True)
        ]
        for name in (several, single)
    }
    ratio = {name: round(median(values), 3) for name, values in ratios.items()}
    cpu = {name: values["processor_ms_a_document"] for name, values in middle.items()}
    print(f"pipeline over bare, median of rounds: {ratio}; target {TARGET_RATIO} of the faster")
    return {
        "median": middle,
        "pipeline_over_bare": ratio,
        "pipeline_over_bare_by_round": ratios,
        "bare_over_worker_processor_time": round(cpu[several] / cpu["pipeline"], 3),
        "target": {"pipeline_over_bare": TARGET_RATIO, "reached": min(ratio.values()) >= TARGET_RATIO},
        "rounds": {
            name: [{key: round(value, 2) for key, value in figures.items()} for figures in rounds]
            for name, rounds in results.items()
        },
    }


def warm_up(
    settings: Settings, search: SyncSearchClient, encoder: OnnxSparseEncoder, documents: list[Document]
) -> None:
    """Write encoded documents until the node's cost is stable: a new JVM takes most of a core."""
    encoded = list(encode_documents(encoder, documents))
    for number in range(_WARM_UP_INDEXES):
        generation = create_index(search, settings, f"warm{number}", STDLIB_SPEC)
        for copy in range(_WARM_UP_WRITES // _WARM_UP_INDEXES // len(encoded)):
            copies = [(replace(document, id=f"{copy}-{document.id}"), windows) for document, windows in encoded]
            journal_documents(search, settings, generation, [document for document, _ in copies])
            fill_generation(search, settings, generation, copies)
        search.send(delete_generations_call([generation]))


class WorkerPipeline:
    """Running worker, and rounds through it."""

    def __init__(self, settings: Settings, search: SyncSearchClient, documents: list[Document], worker: int) -> None:
        self._settings, self._search, self._documents = settings, search, documents
        self._worker = psutil.Process(worker)
        self._rounds = 0
        self._rate = 50.0
        self.node_seconds: list[float] = []

    def run(self, documents: list[Document] | None = None) -> tuple[float, float]:
        """Journal into a new index, then encode through the queue; return seconds and the worker's processor seconds.

        The node's processor seconds, on the same cores, are appended to `node_seconds`.
        """
        documents = documents or self._documents
        self._rounds += 1
        generation = create_index(self._search, self._settings, f"round{self._rounds}", STDLIB_SPEC)
        journal_documents(self._search, self._settings, generation, documents)
        self._search.send(refresh_call(generation.physical))
        time.sleep(1)
        before, node_before = self._processor_seconds(), self._node_seconds()
        started = time.monotonic()
        self._publish(generation, documents)
        wait_for_writes(self._search, generation, 2 * len(documents), self._rate)
        seconds = time.monotonic() - started
        spent = self._processor_seconds() - before
        self.node_seconds.append(self._node_seconds() - node_before)
        self._check(generation, len(documents))
        self._rate = len(documents) / seconds
        return seconds, spent

    def _publish(self, generation: Generation, documents: list[Document]) -> None:
        step = self._settings.message_documents
        with closing(Publisher(self._settings.redis_address)) as publisher:
            for at in range(0, len(documents), step):
                ids = tuple(document.id for document in documents[at : at + step])
                publisher.encode(generation.encoder.name, EncodeMessage(index=generation.index, ids=ids))

    def _check(self, generation: Generation, count: int) -> None:
        self._search.send(refresh_call(generation.physical))
        states = read_state_counts(self._search.send(count_states_call(generation.physical)))
        if states["encoded"] != count:
            raise BackendUnavailable("benchmark_failed", f"Not every document was encoded: {states}.")
        self._search.send(delete_generations_call([generation]))

    def _node_seconds(self) -> float:
        answer = self._search.send(Call("GET", "/_nodes/stats/process"))
        return sum(float(node["process"]["cpu"]["total_in_millis"]) for node in answer["nodes"].values()) / 1e3

    def _processor_seconds(self) -> float:
        family = [self._worker, *self._worker.children(recursive=True)]
        return sum(sum(process.cpu_times()[:2]) for process in family)


@dataclass
class BareSessions:
    """Processes with a session each that take messages from one counter, as workers take them from one queue."""

    encoder: str
    messages: list[list[IdBatch]]
    processes: int
    threads: int

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._next = context.Value("i", 0)
        self._started: list[tuple[BaseProcess, Connection]] = []
        for _ in range(self.processes):
            parent, child = context.Pipe()
            arguments = (self.encoder, self.messages, self.threads, self._next, child)
            process = context.Process(target=_run_session, args=arguments, daemon=True)
            process.start()
            self._started.append((process, parent))
        for _, pipe in self._started:
            pipe.recv()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, pipe in self._started:
            pipe.send(False)
            process.join(10)

    def run(self) -> tuple[float, float]:
        """Encode every message once; return seconds to the last end, and the processor seconds of all processes."""
        self._next.value = 0
        started = monotonic()
        for _, pipe in self._started:
            pipe.send(True)
        ends = [pipe.recv() for _, pipe in self._started]
        return max(end for end, _ in ends) - started, sum(cpu for _, cpu in ends)


def _run_session(
    name: str, messages: list[list[IdBatch]], threads: int, following: "Synchronized[int]", pipe: Connection
) -> None:
    encoder = cast("OnnxSparseEncoder", load_encoder(name, threads=threads))
    for batch in messages[0]:
        encoder.run(batch)
    pipe.send(True)
    while pipe.recv():
        started = process_time()
        while True:
            with following.get_lock():
                at = following.value
                following.value += 1
            if at >= len(messages):
                break
            for batch in messages[at]:
                encoder.run(batch)
        # The monotonic clock is the same in every process of the machine.
        pipe.send((monotonic(), process_time() - started))


def make_message_batches(encoder: "OnnxSparseEncoder", documents: Sequence[Document], size: int) -> list[list[IdBatch]]:
    """Return, for each message of `size` documents, the batches that a worker makes of it, in its order."""
    return [
        [
            batch
            for group in group_into_runs(_cut_documents(encoder, documents[at : at + size]))
            for batch in _make_batches(encoder, group)
        ]
        for at in range(0, len(documents), size)
    ]


def _cut_documents(encoder: "OnnxSparseEncoder", documents: Sequence[Document]) -> list[WindowedDocument]:
    stored = [StoredDocument(doc.id, 1, {"title": doc.title, "text": doc.text}) for doc in documents]
    windowed = [cut_windows(encoder, encoder.manifest.window, document) for document in stored]
    return [document for document in windowed if isinstance(document, WindowedDocument)]


def _make_batches(encoder: "OnnxSparseEncoder", group: Sequence[WindowedDocument]) -> list[IdBatch]:
    rows = [window.piece_ids for document in group for window in document.windows if window.piece_ids]
    batches = batch_by_length([len(row) + 2 for row in rows], encoder.batch_pieces)
    return [[rows[position] for position in batch] for batch in batches]
