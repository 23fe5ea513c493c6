"""The encoder's model by itself on batches that were made before: what a worker could reach if all else were free."""

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from time import monotonic, process_time
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from indexer.encoding import Cut, cut, runs
from models.batching import length_batches
from models.registry import load_encoder
from services.documents import Document
from services.opensearch.journal import Stored

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

    from models.onnx_encoder import OnnxSparseEncoder

# Rows of piece ids of one run of the model.
Batch = list[tuple[int, ...]]


def message_batches(encoder: "OnnxSparseEncoder", documents: Sequence[Document], together: int) -> list[list[Batch]]:
    """For each message of `together` documents the batches that a worker makes of it, in its order."""
    return [
        [batch for group in runs(_cuts(encoder, documents[at : at + together])) for batch in _batches(encoder, group)]
        for at in range(0, len(documents), together)
    ]


def _cuts(encoder: "OnnxSparseEncoder", documents: Sequence[Document]) -> list[Cut]:
    stored = [Stored(one.id, 1, {"title": one.title, "text": one.text}) for one in documents]
    found = [cut(encoder, encoder.manifest.window, one) for one in stored]
    return [one for one in found if isinstance(one, Cut)]


def _batches(encoder: "OnnxSparseEncoder", group: Sequence[Cut]) -> list[Batch]:
    rows = [window.piece_ids for one in group for window in one.windows if window.piece_ids]
    batches = length_batches([len(row) + 2 for row in rows], encoder.batch_pieces)
    return [[rows[position] for position in batch] for batch in batches]


@dataclass
class BareSessions:
    """Processes with a session each that take messages from one counter, as workers take them from one queue."""

    encoder: str
    messages: list[list[Batch]]
    processes: int
    threads: int

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._next = context.Value("i", 0)
        self._started: list[tuple[BaseProcess, Connection]] = []
        for _ in range(self.processes):
            ours, theirs = context.Pipe()
            arguments = (self.encoder, self.messages, self.threads, self._next, theirs)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            self._started.append((process, ours))
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
        """Encodes every message once: seconds from the start to the last end, and processor seconds of all."""
        self._next.value = 0
        begun = monotonic()
        for _, pipe in self._started:
            pipe.send(True)
        ends = [pipe.recv() for _, pipe in self._started]
        return max(end for end, _ in ends) - begun, sum(cpu for _, cpu in ends)


def _serve(
    name: str, messages: list[list[Batch]], threads: int, following: "Synchronized[int]", pipe: Connection
) -> None:
    encoder = cast("OnnxSparseEncoder", load_encoder(name, threads=threads))
    for batch in messages[0]:
        encoder.run(batch)
    pipe.send(True)
    while pipe.recv():
        begun = process_time()
        while True:
            with following.get_lock():
                at = following.value
                following.value += 1
            if at >= len(messages):
                break
            for batch in messages[at]:
                encoder.run(batch)
        # the clock is the machine's, the same in every process
        pipe.send((monotonic(), process_time() - begun))
