"""Run a worker whose encoder fails at certain words. The tests start it as a separate process.

The encoding of a document with one of these words
    raisepoison   raises
    killpoison    kills its process
    slowpoison    sleeps for a second
    stuckpoison   never ends
A document with the word killingest kills the process that journals it.
Each start of the encoder adds a line to the file ENCODER_LOG.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexer import ingest_task
from indexer.celery_app import create_celery
from indexer.ingest_task import parse_message_document
from indexer.runtime import WorkerSettings
from indexer.worker import run_worker
from models.encoder import Encoder, TextWindow
from models.registry import load_encoder
from services.documents.document import Document
from services.encoders.manifest import Manifest
from services.encoders.vectors import SparseVector
from services.settings import Settings

WORDS = ("raisepoison", "killpoison", "slowpoison", "stuckpoison")


class Accidents:
    """The configured encoder with failures at certain words."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._marked: dict[tuple[int, ...], str] = {}

    @property
    def manifest(self) -> Manifest:
        return self._encoder.manifest

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    def windows(self, text: str, pieces: int | None = None, overlap: int | None = None) -> list[TextWindow]:
        found = self._encoder.windows(text, pieces, overlap)
        for word in WORDS:
            if word in text:
                self._marked.update({window.piece_ids: word for window in found})
        return found

    def encode(self, windows: Sequence[TextWindow]) -> list[SparseVector]:
        if path := os.environ.get("ENCODER_LOG"):
            with Path(path).open("a") as log:
                log.write(f"{os.getpid()} {len(windows)}\n")
        accidents = [self._marked[window.piece_ids] for window in windows if window.piece_ids in self._marked]
        for accident in accidents:
            match accident:
                case "killpoison":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "raisepoison":
                    raise RuntimeError("an accident")
                case "slowpoison":
                    time.sleep(1)
                case "stuckpoison":
                    time.sleep(1000)
        return self._encoder.encode(windows)

    def piece(self, piece_id: int) -> str:
        return self._encoder.piece(piece_id)

    def token(self, piece_id: int) -> str:
        return self._encoder.token(piece_id)


def parse_or_die(item: dict[str, Any], *arguments: Any) -> Document:
    """Parse a document as the ingest task does, or kill the process."""
    if "killingest" in item["text"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return parse_message_document(item, *arguments)


def main() -> int:
    """Work until stopped."""
    logging.basicConfig(level=logging.INFO)
    ingest_task.parse_message_document = parse_or_die
    settings = Settings.read()
    encoder = load_encoder(settings.encoder)
    app = create_celery(settings, WorkerSettings.read(), lambda _: Accidents(encoder))
    return run_worker(app, settings, encoder.manifest, "info")


if __name__ == "__main__":
    sys.exit(main())
