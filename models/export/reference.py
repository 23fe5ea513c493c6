"""The same encoder in plain PyTorch, from the model class of transformers: what the exported graph is compared with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

from models.export.rows import RowVectors, pad
from models.training.recipe_encoder import Activation


class TorchReference:
    """The activation of the largest logit over positions, excluded pieces zero, top k; float32 on the CPU.

    The activation is log(1 + relu) or log(1 + log(1 + relu)); without `expansion`, pieces that are not in the text
    weigh zero.
    """

    def __init__(
        self,
        directory: Path,
        *,
        top_k: int,
        excluded: Collection[int],
        activation: Activation = "log1p_relu",
        expansion: bool = True,
    ) -> None:
        self._model = AutoModelForMaskedLM.from_pretrained(
            str(directory), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()
        self._top_k = top_k
        self._excluded = sorted(excluded)
        self._activation = activation
        self._expansion = expansion

    def encode(self, rows: Sequence[Sequence[int]]) -> RowVectors:
        """Rows of piece ids with their special pieces: ids int32 and weights float32, [rows, k], descending."""
        input_ids, mask = pad(rows)
        with torch.inference_mode():
            real = torch.from_numpy(mask)
            ids = torch.from_numpy(input_ids)
            logits = self._model(input_ids=ids, attention_mask=real).logits
            largest = logits.masked_fill(real[:, :, None] == 0, float("-inf")).amax(1)
            weights = torch.log1p(torch.relu(largest))
            if self._activation == "log1p_log1p_relu":
                weights = torch.log1p(weights)
            weights[:, self._excluded] = 0.0
            if not self._expansion:
                weights *= torch.zeros_like(weights).scatter_reduce_(1, ids.long(), real.float(), "amax")
            values, best = weights.topk(self._top_k, dim=1)
        return best.numpy().astype(np.int32), values.numpy()
