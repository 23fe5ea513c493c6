"""Document encoder on ONNX Runtime: head, pooling, log1p and top-k are in the graph, only top-k pairs come out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from models.batched_encoder import BatchedEncoder
from services.errors import ConfigurationError
from services.manifest import Manifest, verified

log = logging.getLogger("sparsewell.encoder")

MODEL = "model.onnx"
CPU = "CPUExecutionProvider"
# Padded pieces computed at once. The widest tensor takes 4 bytes x 30,522 for each: 120 MB at this size; more was no
# faster (benchmarks/results/encoding-*.json).
BATCH_PIECES = 1024
# Of its arenas, of the C++ library, of CUDA.
_NO_MEMORY = (
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
        self, directory: Path, manifest: Manifest, *, threads: int = 0, batch_pieces: int = BATCH_PIECES
    ) -> None:
        """Raises ConfigurationError for missing, changed or unusable files (codes of `services.manifest`,
        `bad_model`, `bad_tokenizer`)."""
        super().__init__(directory, manifest)
        self.batch_pieces = batch_pieces
        self._first, self._last = self._pieces.id_of("[CLS]"), self._pieces.id_of("[SEP]")
        path = verified(directory, manifest, MODEL)
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), session_options(threads), providers=providers(manifest)
            )
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise ConfigurationError("bad_model", f"{path} cannot be loaded by ONNX Runtime: {error}") from None
        # What it really took: where the GPU cannot be used, the runtime goes on without.
        self.place = "a GPU" if self._session.get_providers()[0] != CPU else "the processor"
        log.info("%s computes on %s", manifest.name, self.place)

    def _length(self, pieces: int) -> int:
        # Two more for the pieces that open and close every window.
        return pieces + 2

    def _memory_ended(self, error: Exception) -> bool:
        # The runtime's errors have kinds, but none for this.
        return isinstance(error, MemoryError) or any(mark in str(error) for mark in _NO_MEMORY)

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


def providers(manifest: Manifest) -> list[str]:
    """Where the model runs: a GPU if ONNX Runtime has one and the weights are fp16 or fp32, otherwise the CPU.

    The integer products of int8 weights have no form for CUDA; node by node they would go back and forth.
    """
    precision = (manifest.model_extra or {}).get("precision")
    if precision in ("fp16", "fp32") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return ["CUDAExecutionProvider", CPU]
    return [CPU]


def session_options(threads: int, *, spinning: bool = False) -> onnxruntime.SessionOptions:
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
