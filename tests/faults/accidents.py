"""Run a worker whose encoder fails at certain words. The tests start it as a separate process.

The encoding of a document with one of these words
    raisepoison      raises
    killpoison       kills its process
    stuckpoison      never ends
    slowpoison       takes SLOW_SECONDS (a second)
    nanpoison        gives a NaN weight: the model's output, before the encoder's own checks
    infpoison        gives an infinite weight
    negativepoison   gives a negative weight
    manypoison       gives a weight for every token of the vocabulary
Each encoded document adds a line to the file ENCODER_LOG: pid, a space, its text.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from celery.worker import request

from indexer.celery_app import create_celery
from indexer.runtime import WorkerSettings
from indexer.worker import run_worker
from models.encoder import Encoder, TextWindow
from models.registry import load_encoder
from services.encoders.manifest import Manifest
from services.encoders.vectors import SparseVector
from services.queue.installation import claim_redis
from services.settings import Settings

WORDS = (
    "raisepoison", "killpoison", "stuckpoison", "slowpoison", "nanpoison", "infpoison", "negativepoison", "manypoison",
)  # fmt: skip
PIECES = 30_522
BAD_WEIGHTS = {"nanpoison": float("nan"), "infpoison": float("inf"), "negativepoison": -1.0}


class Accidents:
    """The configured encoder with failures at certain words."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._texts: dict[tuple[int, ...], str] = {}

    @property
    def manifest(self) -> Manifest:
        return self._encoder.manifest

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    def windows(self, text: str, pieces: int | None = None, overlap: int | None = None) -> list[TextWindow]:
        found = self._encoder.windows(text, pieces, overlap)
        self._texts.update({window.piece_ids: text for window in found})
        return found

    def encode(self, windows: Sequence[TextWindow]) -> list[SparseVector]:
        texts = [self._texts[window.piece_ids] for window in windows]
        if path := os.environ.get("ENCODER_LOG"):
            with Path(path).open("a") as log:
                log.writelines(f"{os.getpid()} {text}\n" for text in texts)
        for text in texts:
            for word in WORDS:
                if word in text:
                    _happen(word)
        vectors = self._encoder.encode(windows)
        return [_spoilt(text, vector) for text, vector in zip(texts, vectors, strict=True)]

    def piece(self, piece_id: int) -> str:
        return self._encoder.piece(piece_id)

    def token(self, piece_id: int) -> str:
        return self._encoder.token(piece_id)


def _happen(word: str) -> None:
    match word:
        case "killpoison":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raisepoison":
            raise RuntimeError("an accident")
        case "slowpoison":
            time.sleep(float(os.environ.get("SLOW_SECONDS", "1")))
        case "stuckpoison":
            time.sleep(1000)


def _spoilt(text: str, vector: SparseVector) -> SparseVector:
    """Return a model's faulty output for this text, after the steps that every encoder's output passes."""
    for word, weight in BAD_WEIGHTS.items():
        if word in text:
            return SparseVector.of(vector.ids, [weight, *vector.weights[1:]])
    if "manypoison" in text:
        return SparseVector.of(np.arange(PIECES), np.ones(PIECES))
    return vector


def work(change: Callable[[object], None] = lambda app: None, *, claim: bool = True) -> int:
    """Work until stopped. `change` modifies the Celery application first. `claim`: check whose Redis it is."""
    logging.basicConfig(level=logging.INFO)
    # Celery logs "Task accepted". From then on the parent knows which process has the task.
    logging.getLogger("celery.worker.request").setLevel(logging.DEBUG)
    request.__optimize__()
    settings = Settings.read()
    if claim:
        claim_redis(settings)
    encoder = load_encoder(settings.encoder)
    app = create_celery(settings, WorkerSettings.read(), lambda _: Accidents(encoder))
    change(app)
    return run_worker(app, settings, encoder.manifest, "info")


if __name__ == "__main__":
    sys.exit(work())
