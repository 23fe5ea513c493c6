"""Document encoder for workers: a Mistral-SPLADE model directory through sentence-transformers, on a GPU or a CPU."""

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

# Positions computed at once on a GPU, both copies of a text counted. On a processor windows are computed one by one:
# from 64 pieces on, batches were at most 14 % faster, and a window's vector then depends on nothing else, to the bit.
GPU_BATCH_POSITIONS = 32_768


class DecoderEncoder(BatchedEncoder):
    """Encoder of a model directory with the architecture `MistralForSparseEncoding`, see `models.encoder.Encoder`.

    `threads` is the number of processor threads (0: torch's default; it holds for the whole process), `batch_pieces`
    the budget of padded positions of one run of the model, `device` and `dtype` what torch calls them (None: a GPU
    where there is one; bf16 unless the manifest's `precision` is float32 or the processor has no such product).

    On a processor a window has the same vector in any company, to the bit, unless `batch_pieces` asks for batches. In
    batches a product may be summed in another order: in float32 weights differ by less than 1e-5, in bf16 single ones
    by up to .2, with 99 % of the kept pieces the same (docs/decisions/0123).
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
        """Raises ConfigurationError for missing, changed or unusable files (codes of `services.encoders.manifest`,
        `bad_model`, `bad_tokenizer`)."""
        super().__init__(directory, manifest)
        for name in (*DECODER_FILES, QUERY_WEIGHTS_FILE):
            verify_file(directory, manifest, name)
        if threads:
            torch.set_num_threads(threads)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype or self._own_dtype()
        gpu = self.device.type == "cuda"
        self.place = str(self.device) if gpu else "the processor"
        self.batch_pieces = batch_pieces or (GPU_BATCH_POSITIONS if gpu else 1)
        # Whoever has a decoder of billions of parameters meant a GPU, and has to see that it is missing.
        found = f" ({torch.cuda.get_device_name(self.device)})" if gpu else "; PyTorch finds no GPU"
        log.info("%s computes on %s%s", manifest.name, self.place, found if gpu or device is None else "")
        self._model = load_sparse_encoder(directory, dtype=self.dtype, device=str(self.device)).eval()
        document = self._model[0].sub_modules["document"][0]
        assert isinstance(document, EchoSplade)  # noqa: S101 (load_sparse_encoder put it there)
        self._document = document

    def _own_dtype(self) -> torch.dtype:
        """What was written in 32 bits is computed in 32; the rest in 16, where the hardware does that."""
        if (self.manifest.model_extra or {}).get("precision") == "float32":
            return torch.float32
        return torch.bfloat16 if self.device.type == "cuda" else cpu_dtype()

    def _length(self, pieces: int) -> int:
        return self._document.echo.positions(pieces)

    def _memory_ended(self, error: Exception) -> bool:
        return is_out_of_memory(error)

    def _halve(self, rows: Sequence[Sequence[int]], longest: int) -> None:
        free_memory()
        super()._halve(rows, longest)

    def run(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """One run on windows of piece ids: ids int64 and weights float32, both [rows, k], heaviest first."""
        features = {name: tensor.to(self.device) for name, tensor in self._document.features(rows).items()}
        with torch.inference_mode():
            weights = self._model(features, task="document")["sentence_embedding"]
            heaviest = torch.topk(weights, min(self.manifest.top_k, weights.shape[1]), dim=1)
            return heaviest.indices.cpu().numpy(), heaviest.values.float().cpu().numpy()
