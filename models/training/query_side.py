"""The query side: a table of weights, no model. Distinct pieces count once (arXiv 2411.04403)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding
from torch import Tensor


class QueryTableEmbedding(SparseStaticEmbedding):
    """SparseStaticEmbedding whose weights stay at 0 or above, and at 0 for excluded pieces.

    The optimiser may step anywhere; before the weights are used again, and before they are saved, they are projected
    back (a projected gradient step). Clamping inside the forward pass instead would kill the gradient of a weight that
    was once below 0. It is saved as a plain SparseStaticEmbedding, which gives the same vectors.
    """

    def __init__(self, tokenizer: Any, weight: Tensor, frozen: bool, excluded: Collection[int] = ()) -> None:
        super().__init__(tokenizer=tokenizer, weight=weight, frozen=frozen)
        # a bag of pieces: no position limits it
        self.max_seq_length = None
        self.register_buffer("_excluded", torch.tensor(sorted(excluded), dtype=torch.long), persistent=False)
        self.project()

    def project(self) -> None:
        """Puts weights below 0, and those of excluded pieces, back to 0. NaN stays."""
        with torch.no_grad():
            self.weight.clamp_(min=0.0)
            self.weight[self._excluded] = 0.0

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Adds `sentence_embedding` [queries, vocabulary]."""
        if self.training and self.weight.requires_grad:
            self.project()
        weighed: dict[str, Any] = super().forward(features)
        return weighed

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Writes weights, tokeniser and config in sentence-transformers' layout."""
        self.project()
        super().save(output_path, *args, safe_serialization=True, **kwargs)
