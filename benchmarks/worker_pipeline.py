"""How much of the bare model's speed does a worker keep? Documents a second through the queue, and without anything.

    python -m benchmarks.worker_pipeline --json benchmarks/results/worker_pipeline.json

Pipeline: documents lie in the journal; the clock runs from the first message to the last encoded document that
OpenSearch has stored. Real Celery worker, Redis and node on the same cores. Bare: the model alone on the same texts'
windows, cut and batched before, the same number of processes with one thread each, and one session with as many
threads. Rounds take turns.
"""

import argparse
import random
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from statistics import median
from typing import Any

import psutil

from benchmarks.bare_sessions import BareSessions, message_batches
from benchmarks.filled_index import create, encode, fill, journal
from benchmarks.record import command_line, run
from benchmarks.service import opensearch_version, running, service_settings
from benchmarks.stdlib_index import SPEC, stdlib_documents
from models.onnx_encoder import OnnxSparseEncoder
from models.registry import load_encoder
from services.contracts import EncodeMessage
from services.documents import Document
from services.errors import BackendUnavailable
from services.index_spec import Generation
from services.opensearch.client import Call, SyncSearch
from services.opensearch.generations import count_call, delete_call, read_counts, refresh_call
from services.queue import Publisher
from services.settings import Settings

TARGET = 0.95
_LONGEST_SECONDS = 900.0
# After 12,800 writes the node still took 1.4 ms of processor time a document, after 76,800 1.0.
_WARM_UP_INDEXES, _WARM_UP_WRITES = 8, 76_800


class Pipeline:
    """A worker that runs, and rounds through it."""

    def __init__(self, settings: Settings, search: SyncSearch, documents: list[Document], worker: int) -> None:
        self._settings, self._search, self._documents = settings, search, documents
        self._worker = psutil.Process(worker)
        self._rounds = 0
        self._rate = 50.0
        self.node_seconds: list[float] = []

    def run(self, documents: list[Document] | None = None) -> tuple[float, float]:
        """Journals into a new index, then encodes through the queue: seconds, and processor seconds of the worker.

        The node's own processor seconds, which come off the same cores, are added to `node_seconds`.
        """
        documents = documents or self._documents
        self._rounds += 1
        generation = create(self._search, self._settings, f"round{self._rounds}", SPEC)
        journal(self._search, self._settings, generation, documents)
        self._search.send(refresh_call(generation.physical))
        time.sleep(1)
        before, node_before = self._processor_seconds(), self._node_seconds()
        begun = time.monotonic()
        self._publish(generation, documents)
        self._wait(generation, len(documents))
        seconds = time.monotonic() - begun
        spent = self._processor_seconds() - before
        self.node_seconds.append(self._node_seconds() - node_before)
        self._check(generation, len(documents))
        self._rate = len(documents) / seconds
        return seconds, spent

    def _publish(self, generation: Generation, documents: list[Document]) -> None:
        step = self._settings.message_documents
        with closing(Publisher(self._settings.redis_address)) as publisher:
            for at in range(0, len(documents), step):
                ids = tuple(one.id for one in documents[at : at + step])
                publisher.encode(generation.encoder.name, EncodeMessage(index=generation.index, ids=ids))

    def _wait(self, generation: Generation, count: int) -> None:
        """Until every document was written a second time. Looks rarely at first, so that looking costs nothing."""
        end = time.monotonic() + _LONGEST_SECONDS
        call = Call("GET", f"/{generation.physical}/_stats/indexing", params={"filter_path": "_all.primaries"})
        while True:
            total = self._search.send(call)["_all"]["primaries"]["indexing"]["index_total"]
            if total >= 2 * count:
                return
            if time.monotonic() > end:
                raise BackendUnavailable("benchmark_stuck", f"{total - count} of {count} documents were encoded.")
            time.sleep(min(1.0, max(0.02, (2 * count - total) / self._rate / 3)))

    def _check(self, generation: Generation, count: int) -> None:
        self._search.send(refresh_call(generation.physical))
        states = read_counts(self._search.send(count_call(generation.physical)))
        if states["encoded"] != count:
            raise BackendUnavailable("benchmark_failed", f"Not every document was encoded: {states}.")
        self._search.send(delete_call([generation]))

    def _node_seconds(self) -> float:
        answer = self._search.send(Call("GET", "/_nodes/stats/process"))
        return sum(float(node["process"]["cpu"]["total_in_millis"]) for node in answer["nodes"].values()) / 1e3

    def _processor_seconds(self) -> float:
        family = [self._worker, *self._worker.children(recursive=True)]
        return sum(sum(process.cpu_times()[:2]) for process in family)


def warm_up(settings: Settings, search: SyncSearch, encoder: OnnxSparseEncoder, documents: list[Document]) -> None:
    """Writes encoded documents until the node does it at its usual price: a fresh Java process takes most of a core."""
    encoded = list(encode(encoder, documents))
    for number in range(_WARM_UP_INDEXES):
        generation = create(search, settings, f"warm{number}", SPEC)
        for copy in range(_WARM_UP_WRITES // _WARM_UP_INDEXES // len(encoded)):
            copies = [(replace(document, id=f"{copy}-{document.id}"), windows) for document, windows in encoded]
            journal(search, settings, generation, [document for document, _ in copies])
            fill(search, settings, generation, copies)
        search.send(delete_call([generation]))


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Documents a second of each side by round, and the ratio to the faster of the bare ones."""
    documents = stdlib_documents(given.documents)
    with ExitStack() as stack:
        base = stack.enter_context(service_settings())
        settings = base.model_copy(update={"worker_concurrency": given.processes, "worker_threads": 1})
        encoder = load_encoder(settings.encoder, threads=1)
        if not isinstance(encoder, OnnxSparseEncoder):
            raise BackendUnavailable("no_onnx_model", f"{settings.encoder} has no ONNX model to compare with.")
        messages = message_batches(encoder, documents, settings.message_documents)
        search = stack.enter_context(closing(SyncSearch(settings)))
        worker = stack.enter_context(running(settings, "worker"))
        pipeline = Pipeline(settings, search, documents, worker.pid)
        several = f"bare, {given.processes} processes of 1 thread"
        single = f"bare, 1 process of {given.processes} threads"
        sides: dict[str, Pipeline | BareSessions] = {
            "pipeline": pipeline,
            several: stack.enter_context(BareSessions(settings.encoder, messages, given.processes, 1)),
            single: stack.enter_context(BareSessions(settings.encoder, messages, 1, given.processes)),
        }
        print("warming the node up", flush=True)
        warm_up(settings, search, encoder, documents[: settings.message_documents])
        # Each worker process loads its encoder with its first message, and the node's compiler sees the writes of a
        # worker: a first whole round was 5 to 10 % slower than those after it.
        pipeline.run()
        found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for number in range(1, given.rounds + 1):
            for name in random.Random(number).sample(list(sides), len(sides)):
                seconds, cpu = sides[name].run()
                found[name].append(
                    {
                        "documents_a_second": len(documents) / seconds,
                        "processor_ms_a_document": cpu / len(documents) * 1e3,
                    }
                )
                print(f"round {number}: {name:>30}: {len(documents) / seconds:6.1f} documents a second", flush=True)
        node = median(pipeline.node_seconds[-given.rounds :]) / len(documents) * 1e3
        version = opensearch_version(settings)
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "documents": len(documents),
        "windows": sum(len(batch) for message in messages for batch in message),
        "pieces": sum(len(row) for message in messages for batch in message for row in batch),
        "batch_pieces": encoder.batch_pieces,
        "message_documents": settings.message_documents,
        "node_processor_ms_a_document": round(node, 2),
        **_summary(found, several, single),
    }


def _summary(found: dict[str, list[dict[str, float]]], several: str, single: str) -> dict[str, Any]:
    middle = {
        name: {key: round(median(one[key] for one in rounds), 2) for key in rounds[0]} for name, rounds in found.items()
    }
    ratios = {
        name: [
            round(mine["documents_a_second"] / bare["documents_a_second"], 3)
            for mine, bare in zip(found["pipeline"], found[name], strict=True)
        ]
        for name in (several, single)
    }
    ratio = {name: round(median(values), 3) for name, values in ratios.items()}
    cpu = {name: values["processor_ms_a_document"] for name, values in middle.items()}
    print(f"pipeline over bare, median of rounds: {ratio}; target {TARGET} of the faster")
    return {
        "median": middle,
        "pipeline_over_bare": ratio,
        "pipeline_over_bare_by_round": ratios,
        "bare_over_worker_processor_time": round(cpu[several] / cpu["pipeline"], 3),
        "target": {"pipeline_over_bare": TARGET, "reached": min(ratio.values()) >= TARGET},
        "rounds": {
            name: [{key: round(value, 2) for key, value in one.items()} for one in rounds]
            for name, rounds in found.items()
        },
    }


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("worker_pipeline", __doc__)
    parser.add_argument("--documents", type=int, default=2560)
    parser.add_argument("--processes", type=int, default=2, help="cores that each side uses")
    parser.add_argument("--rounds", type=int, default=4)
    run("worker_pipeline", parser, measure, arguments)


if __name__ == "__main__":
    main()
