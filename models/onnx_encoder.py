"""Sparse document encoder on ONNX Runtime.

The graph includes the vocabulary head, max pooling, log1p and top-k: its output is k pairs of id and weight a window.
`BatchedEncoder` is the base of encoders that run batches (this one and `models.decoder.encoder`): it groups windows of
similar length, which keeps padding small, and halves the batch when memory runs out. Session options, threads and
spinning: `docs/decisions/0022`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from models.encoder import TextWindow, WordPieceEncoder, make_finite_vector
from services.encoders.manifest import Manifest, verify_file
from services.encoders.vectors import EMPTY_VECTOR, SparseVector
from services.errors import ConfigurationError, Overloaded

log = logging.getLogger("sparsewell.encoder")
# Runs a model on rows of piece ids, and returns arrays with one row for each.
RunModel = Callable[[Sequence[Sequence[int]]], Sequence[np.ndarray]]
MODEL_FILE = "model.onnx"
CPU_PROVIDER = "CPUExecutionProvider"
# Padded pieces of one model run. The widest tensor takes 4 x 30,522 bytes a piece, 125 MB at this size. Larger batches
# were no faster (benchmarks/results/encoding-*.json).
MAX_BATCH_PIECES = 1024
# From ONNX Runtime's arenas, the C++ library and CUDA.
_OUT_OF_MEMORY_MESSAGES = (
    "Failed to allocate memory",
    "is smaller than requested bytes",
    "bad_alloc",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


class BatchedEncoder(WordPieceEncoder, ABC):
    """An encoder that runs its model on batches, with smaller batches after memory ran out.

    `batch_pieces`: maximum padded pieces of one model run. `place`: the device, for messages.
    """

    batch_pieces: int
    place: str

    @abstractmethod
    def run(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Run the model on piece ids without special pieces. Returns ids and weights, both [rows, k]."""

    @abstractmethod
    def _length(self, pieces: int) -> int:
        """Return the model positions of a window of `pieces` pieces."""

    @abstractmethod
    def _is_out_of_memory(self, error: Exception) -> bool:
        """Check whether a run failed for lack of memory."""

    def encode(self, windows: Sequence[TextWindow]) -> list[SparseVector]:
        """Encode windows, see `models.encoder.Encoder.encode`. When memory runs out, the batch size is halved for good.

        Raises Overloaded (`out_of_memory`) when a single window does not fit: other processes may hold the memory.
        """
        return self.sparse_vectors(windows, self.outputs(windows, self.run))

    def outputs(self, windows: Sequence[TextWindow], run: RunModel) -> dict[int, tuple[np.ndarray, ...]]:
        """Run the model in batches. Return the outputs of each window that has pieces, by its position."""
        found: dict[int, tuple[np.ndarray, ...]] = {}
        waiting = [position for position, window in enumerate(windows) if window.piece_ids]
        while waiting:
            lengths = [self._length(len(windows[position].piece_ids)) for position in waiting]
            for batch in batch_by_length(lengths, self.batch_pieces):
                rows = [waiting[row] for row in batch]
                pieces = [windows[position].piece_ids for position in rows]
                outputs = self._run_or_halve(run, pieces, lengths[batch[0]])
                if outputs is None:
                    break
                found |= zip(rows, zip(*outputs, strict=True), strict=True)
            waiting = [position for position in waiting if position not in found]
        return found

    def sparse_vectors(
        self, windows: Sequence[TextWindow], outputs: Mapping[int, Sequence[np.ndarray]]
    ) -> list[SparseVector]:
        """Return one vector a window from its ids and weights. Raises InvalidInput (`not_finite_weights`)."""
        vectors = [EMPTY_VECTOR] * len(windows)
        for position in sorted(outputs):
            ids, weights = outputs[position]
            vectors[position] = make_finite_vector(ids, weights, self.manifest.name, position, windows[position])
        return vectors

    def _run_or_halve(self, run: RunModel, rows: Sequence[Sequence[int]], longest: int) -> Sequence[np.ndarray] | None:
        """Run the model; on lack of memory halve the batch size and return None."""
        try:
            return run(rows)
        except Exception as error:  # the runtimes' errors share no base but Exception
            if not self._is_out_of_memory(error):
                raise
        # This runs outside the handler, where the error's frames no longer hold the tensors.
        self._halve(rows, longest)
        return None

    def _halve(self, rows: Sequence[Sequence[int]], longest: int) -> None:
        if len(rows) == 1:
            raise Overloaded(
                "out_of_memory",
                f"The encoder {self.manifest.name} has not enough memory on {self.place} for a window of "
                f"{len(rows[0])} pieces: choose a smaller window, fewer processes, or a machine with more memory.",
            )
        self.batch_pieces = max(longest, len(rows) * longest // 2)
        log.warning("out of memory on %s: batches have %d pieces from now on", self.place, self.batch_pieces)


def batch_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group positions of `lengths` into batches of at most `budget` padded pieces (rows x longest), longest first.

    A length above the budget makes a batch by itself. Every position appears once; equal lengths keep their order, so
    the batches are deterministic. Longest first lets the runtime's memory pool reach its final size at once.
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


class OnnxSparseEncoder(BatchedEncoder):
    """Encoder of a model directory with model.onnx, see `models.encoder.Encoder`. Threads may call `encode`.

    `threads`: threads of one call (0: all cores). `batch_pieces`: maximum padded pieces of one model run.
    """

    def __init__(
        self, directory: Path, manifest: Manifest, *, threads: int = 0, batch_pieces: int = MAX_BATCH_PIECES
    ) -> None:
        """Raises ConfigurationError: `bad_model`, `bad_tokenizer`, `missing_model_file`, `corrupt_model_file`."""
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
        # The provider in use: when the GPU cannot be used, the runtime falls back to the CPU.
        self.place = "a GPU" if self._session.get_providers()[0] != CPU_PROVIDER else "the CPU"
        log.info("%s computes on %s", manifest.name, self.place)

    def _length(self, pieces: int) -> int:
        return pieces + 2  # [CLS] and [SEP]

    def _is_out_of_memory(self, error: Exception) -> bool:
        # The runtime has no error class for lack of memory.
        return isinstance(error, MemoryError) or any(mark in str(error) for mark in _OUT_OF_MEMORY_MESSAGES)

    def run(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Run the model on piece ids without special pieces. Returns int32 ids and float32 weights, both [rows, k]."""
        ids, weights = self.run_for(("ids", "weights"), rows)
        return ids, weights

    def run_for(self, outputs: Sequence[str], rows: Sequence[Sequence[int]]) -> Sequence[np.ndarray]:
        """Run the model on piece ids without special pieces, for the named outputs alone."""
        input_ids, mask = pad_rows([(self._first, *row, self._last) for row in rows])
        arrays: Sequence[np.ndarray] = self._session.run(
            list(outputs), {"input_ids": input_ids, "attention_mask": mask}
        )
        return arrays


def pad_rows(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return piece ids and attention mask, both int32 [rows, longest]."""
    length = max(len(row) for row in rows)
    input_ids = np.zeros((len(rows), length), dtype=np.int32)
    mask = np.zeros_like(input_ids)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return input_ids, mask


def choose_providers(manifest: Manifest) -> list[str]:
    """Choose the GPU if ONNX Runtime has one and the weights are fp16 or fp32, otherwise the CPU.

    CUDA has no integer products for int8 weights: tensors would be copied to the CPU and back at each node.
    """
    precision = (manifest.model_extra or {}).get("precision")
    if precision in ("fp16", "fp32") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return ["CUDAExecutionProvider", CPU_PROVIDER]
    return [CPU_PROVIDER]


def make_session_options(threads: int, *, spinning: bool = False) -> onnxruntime.SessionOptions:
    """Make the session options that were fastest beside other processes on the machine.

    `spinning` threads wait busily for work, which halved the documents a second on a busy machine
    (docs/decisions/0022).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Errors only: the runtime's warnings go to stderr and are not useful.
    options.log_severity_level = 3
    return options
