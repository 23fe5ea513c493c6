"""Document encoder on ONNX Runtime: head, pooling, log1p and top-k are in the graph, only top-k pairs come out.

Groups windows of similar length, so that little of what the encoder computes is padding.

An encoder whose model runs on batches of windows, and goes on with smaller ones where the memory ends.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from models.encoder import TextWindow, WordPieceEncoder, make_finite_vector
from services.encoders.manifest import Manifest, verify_file
from services.encoders.vectors import EMPTY_VECTOR, SparseVector
from services.errors import ConfigurationError, Overloaded


def batch_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions of `lengths` in batches, longest first, each of at most `budget` padded pieces (rows x longest).

    A single length above the budget makes a batch of its own. Every position appears once; equal lengths keep their
    order, so the batches depend on nothing but the arguments. Longest first lets the runtime's memory pool take its
    final size at once.
    """
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    batches: list[list[int]] = []
    rows = 0
    for position in order:
        if rows == 0:
            rows = max(1, budget // max(1, lengths[position]))
            batches.append([])
        batches[-1].append(position)
        rows -= 1
    return batches


log = logging.getLogger("sparsewell.encoder")


class BatchedEncoder(WordPieceEncoder, ABC):
    """`batch_pieces` is the budget of padded pieces of one run of the model, `place` where it runs, in a word."""

    batch_pieces: int
    place: str

    @abstractmethod
    def run(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """One run of the model on piece ids, special ones left out: ids and weights, both [rows, k]."""

    @abstractmethod
    def _length(self, pieces: int) -> int:
        """What a window of so many pieces takes of the budget when it is alone."""

    @abstractmethod
    def _memory_ended(self, error: Exception) -> bool:
        """Whether a run failed because there was not enough memory for its batch."""

    def encode(self, windows: Sequence[TextWindow]) -> list[SparseVector]:
        """As `models.encoder.Encoder.encode`. Where the memory ends, the budget is halved for good.

        Raises Overloaded (`out_of_memory`) when not even a window by itself fits: others may have the memory now.
        """
        vectors = [EMPTY_VECTOR] * len(windows)
        waiting = [position for position, window in enumerate(windows) if window.piece_ids]
        while waiting:
            lengths = [self._length(len(windows[position].piece_ids)) for position in waiting]
            done: set[int] = set()
            for batch in batch_by_length(lengths, self.batch_pieces):
                rows = [waiting[row] for row in batch]
                found = self._run_or_halve([windows[position].piece_ids for position in rows], lengths[batch[0]])
                if found is None:
                    break
                for position, ids, weights in zip(rows, *found, strict=True):
                    vectors[position] = make_finite_vector(
                        ids, weights, self.manifest.name, position, windows[position]
                    )
                done.update(rows)
            waiting = [position for position in waiting if position not in done]
        return vectors

    def _run_or_halve(self, rows: Sequence[Sequence[int]], longest: int) -> tuple[np.ndarray, np.ndarray] | None:
        """`run`; None after the memory was not enough and the budget was halved."""
        try:
            return self.run(rows)
        except Exception as error:  # the runtimes' errors share no base but Exception
            if not self._memory_ended(error):
                raise
        # (outside of the handler, where the error's frames no longer hold the tensors)
        self._halve(rows, longest)
        return None

    def _halve(self, rows: Sequence[Sequence[int]], longest: int) -> None:
        if len(rows) == 1:
            raise Overloaded(
                "out_of_memory",
                f"The encoder {self.manifest.name} has not enough memory on {self.place} for one window of "
                f"{len(rows[0])} pieces: choose a smaller window, fewer processes, or a machine with more memory.",
            )
        self.batch_pieces = max(longest, len(rows) * longest // 2)
        log.warning("out of memory on %s: batches have %d pieces from now on", self.place, self.batch_pieces)


MODEL_FILE = "model.onnx"
CPU_PROVIDER = "CPUExecutionProvider"
# Padded pieces computed at once. The widest tensor takes 4 bytes x 30,522 for each: 120 MB at this size; more was no
# faster (benchmarks/results/encoding-*.json).
MAX_BATCH_PIECES = 1024
# Of its arenas, of the C++ library, of CUDA.
_OUT_OF_MEMORY_MESSAGES = (
    "Failed to allocate memory",
    "is smaller than requested bytes",
    "bad_alloc",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


class OnnxSparseEncoder(BatchedEncoder):
    """Encoder of a model directory, see `models.encoder.Encoder`. One per process; `encode` may be called by threads.

    `threads` is the number of threads of one call (0: as many as the machine has cores), `batch_pieces` the budget of
    padded pieces of one run of the model.
    """

    def __init__(
        self, directory: Path, manifest: Manifest, *, threads: int = 0, batch_pieces: int = MAX_BATCH_PIECES
    ) -> None:
        """Raises ConfigurationError for missing, changed or unusable files (codes of `services.encoders.manifest`,
        `bad_model`, `bad_tokenizer`)."""
        super().__init__(directory, manifest)
        self.batch_pieces = batch_pieces
        self._first, self._last = self._pieces.id_of("[CLS]"), self._pieces.id_of("[SEP]")
        path = verify_file(directory, manifest, MODEL_FILE)
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), make_session_options(threads), providers=choose_providers(manifest)
            )
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise ConfigurationError("bad_model", f"{path} cannot be loaded by ONNX Runtime: {error}") from None
        # What it really took: where the GPU cannot be used, the runtime goes on without.
        self.place = "a GPU" if self._session.get_providers()[0] != CPU_PROVIDER else "the processor"
        log.info("%s computes on %s", manifest.name, self.place)

    def _length(self, pieces: int) -> int:
        # Two more for the pieces that open and close every window.
        return pieces + 2

    def _memory_ended(self, error: Exception) -> bool:
        # The runtime's errors have kinds, but none for this.
        return isinstance(error, MemoryError) or any(mark in str(error) for mark in _OUT_OF_MEMORY_MESSAGES)

    def run(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """One run of the model on piece ids, special ones left out: ids int32 and weights float32, both [rows, k]."""
        length = max(len(row) for row in rows) + 2
        input_ids = np.zeros((len(rows), length), dtype=np.int32)
        mask = np.zeros((len(rows), length), dtype=np.int32)
        for index, row in enumerate(rows):
            end = len(row) + 1
            input_ids[index, 0] = self._first
            input_ids[index, 1:end] = row
            input_ids[index, end] = self._last
            mask[index, : end + 1] = 1
        ids, weights = self._session.run(["ids", "weights"], {"input_ids": input_ids, "attention_mask": mask})
        return ids, weights


def choose_providers(manifest: Manifest) -> list[str]:
    """Where the model runs: a GPU if ONNX Runtime has one and the weights are fp16 or fp32, otherwise the CPU.

    The integer products of int8 weights have no form for CUDA; node by node they would go back and forth.
    """
    precision = (manifest.model_extra or {}).get("precision")
    if precision in ("fp16", "fp32") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return ["CUDAExecutionProvider", CPU_PROVIDER]
    return [CPU_PROVIDER]


def make_session_options(threads: int, *, spinning: bool = False) -> onnxruntime.SessionOptions:
    """The options that were fastest without taking the machine from its other processes.

    `spinning` threads wait for work by burning their core: on a busy machine that halved the documents a second
    (docs/decisions/0022-threads-of-a-worker.md).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Warnings and information of the runtime go nowhere useful; errors are raised.
    options.log_severity_level = 3
    return options
