"""A pipeline without a journal, for comparison: documents travel in the message, and only the encoded one is written.

The worker's own code does the work (`indexer.encode_task.EncodeRun`); it is handed the documents where it would read
them. Run as a module it is a worker that takes these messages beside its usual ones.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from indexer.app import create_celery
from indexer.encode_task import EncodeRun
from indexer.runtime import Runtime, load_configured
from indexer.settings import WorkerSettings
from indexer.start import run_worker, wait_for_redis
from services.contracts import INGEST_QUEUE
from services.documents import parse_document
from services.manifest import read_manifest, resolve
from services.opensearch.journal import raw_write
from services.settings import Settings

TASK = "benchmark.unjournalled.v1"
QUEUE = INGEST_QUEUE


@dataclass
class UnjournalledRun(EncodeRun):
    """Finds its documents in the message."""

    documents: Sequence[dict[str, Any]] = field(default=())

    def _read(self, ids: Sequence[str]) -> dict[str, object]:
        found = []
        for item in self.documents:
            document = parse_document(item, self.generation.spec)
            raw = raw_write(self.generation, document, "benchmark", 1, self.runtime.settings.lease_seconds)
            found.append({"_id": raw.id, "_version": raw.version, "_source": raw.source, "found": True})
        return {"docs": found}


def create_worker(settings: Settings, worker: WorkerSettings) -> Celery:
    """The service's application with one more task."""
    app = create_celery(settings, worker)
    runtime = Runtime(settings, worker, load_configured)

    @app.task(name=TASK, typing=False)  # type: ignore[untyped-decorator]
    def unjournalled(index: str, documents: list[dict[str, Any]]) -> None:
        generation = runtime.generation(index)
        runtime.check_encoder(generation)
        run = UnjournalledRun(runtime, generation, redelivered=False, documents=documents)
        run.run([document["id"] for document in documents])

    return app


def main() -> int:
    """The worker."""
    logging.basicConfig(level=logging.INFO)
    settings, times = Settings.read(), WorkerSettings.read()
    wait_for_redis(settings.redis_address, times.redis_wait)
    return run_worker(create_worker(settings, times), settings, read_manifest(resolve(settings.encoder)), "info")


if __name__ == "__main__":
    sys.exit(main())
