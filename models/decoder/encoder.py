"""Decoder encoder of workers: a Mistral-SPLADE model directory through sentence-transformers, on a GPU or the CPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.decoder.model import DECODER_FILES, EchoSplade, load_sparse_encoder
from models.onnx_encoder import BatchedEncoder
from models.training.trainer import cpu_dtype, free_memory, is_out_of_memory
from services.encoders.manifest import Manifest, verify_file
from services.encoders.query_table import QUERY_WEIGHTS_FILE

log = logging.getLogger("sparsewell.encoder")

# Positions of one model run on a GPU, both copies of a text counted. On a CPU each window is a run: batches were at
# most 14 % faster from 64 pieces on, and without them a window's vector is the same to the bit in every call.
GPU_BATCH_POSITIONS = 32_768


class DecoderEncoder(BatchedEncoder):
    """Encoder of a model directory with the architecture `MistralForSparseEncoding`, see `models.encoder.Encoder`.

    `threads`: CPU threads of the whole process (0: torch's default). `batch_pieces`: maximum padded positions of one
    model run. `device`, `dtype`: as in torch; None: a GPU if there is one, and bf16 unless the manifest's `precision`
    is float32 or the CPU cannot multiply bf16.

    On a CPU without `batch_pieces`, a window has the same vector in every call, to the bit. In batches, sums may have
    another order: float32 weights differ by less than 1e-5, single bf16 weights by up to .2, and 99 % of the kept
    pieces are the same (docs/decisions/0123).
    """

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        *,
        threads: int = 0,
        batch_pieces: int | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Raises ConfigurationError: `bad_model`, `bad_tokenizer`, `missing_model_file`, `corrupt_model_file`."""
        super().__init__(directory, manifest)
        for name in (*DECODER_FILES, QUERY_WEIGHTS_FILE):
            verify_file(directory, manifest, name)
        if threads:
            torch.set_num_threads(threads)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype or self._default_dtype()
        gpu = self.device.type == "cuda"
        self.place = str(self.device) if gpu else "the CPU"
        self.batch_pieces = batch_pieces or (GPU_BATCH_POSITIONS if gpu else 1)
        # A decoder of billions of parameters needs a GPU, so the log says when there is none.
        hardware = f" ({torch.cuda.get_device_name(self.device)})" if gpu else "; PyTorch finds no GPU"
        log.info("%s computes on %s%s", manifest.name, self.place, hardware if gpu or device is None else "")
        self._model = load_sparse_encoder(directory, dtype=self.dtype, device=str(self.device)).eval()
        document = self._model[0].sub_modules["document"][0]
        assert isinstance(document, EchoSplade)  # noqa: S101 (load_sparse_encoder put it there)
        self._document = document

    def _default_dtype(self) -> torch.dtype:
        """Return float32 for float32 weights, otherwise bfloat16 if the hardware multiplies it."""
        if (self.manifest.model_extra or {}).get("precision") == "float32":
            return torch.float32
        return torch.bfloat16 if self.device.type == "cuda" else cpu_dtype()

    def _length(self, pieces: int) -> int:
        return self._document.echo.positions(pieces)

    def _is_out_of_memory(self, error: Exception) -> bool:
        return is_out_of_memory(error)

    def _halve(self, rows: Sequence[Sequence[int]], longest: int) -> None:
        free_memory()
        super()._halve(rows, longest)

    def run(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Run the model on windows of piece ids. Returns int64 ids and float32 weights [rows, k], heaviest first."""
        features = {name: tensor.to(self.device) for name, tensor in self._document.features(rows).items()}
        with torch.inference_mode():
            weights = self._model(features, task="document")["sentence_embedding"]
            heaviest = torch.topk(weights, min(self.manifest.top_k, weights.shape[1]), dim=1)
            return heaviest.indices.cpu().numpy(), heaviest.values.float().cpu().numpy()
