"""The same encoder in plain PyTorch, from the model class of transformers: what the exported graph is compared with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

from models.export.rows import RowVectors, pad


class TorchReference:
    """log(1 + relu(max over positions of the logits)), excluded pieces zero, top k; float32 on the CPU."""

    def __init__(self, directory: Path, *, top_k: int, excluded: Collection[int]) -> None:
        self._model = AutoModelForMaskedLM.from_pretrained(
            str(directory), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()
        self._top_k = top_k
        self._excluded = sorted(excluded)

    def encode(self, rows: Sequence[Sequence[int]]) -> RowVectors:
        """Rows of piece ids with their special pieces: ids int32 and weights float32, [rows, k], descending."""
        input_ids, mask = pad(rows)
        with torch.inference_mode():
            real = torch.from_numpy(mask)
            logits = self._model(input_ids=torch.from_numpy(input_ids), attention_mask=real).logits
            largest = logits.masked_fill(real[:, :, None] == 0, float("-inf")).amax(1)
            weights = torch.log1p(torch.relu(largest))
            weights[:, self._excluded] = 0.0
            values, ids = weights.topk(self._top_k, dim=1)
        return ids.numpy().astype(np.int32), values.numpy()
