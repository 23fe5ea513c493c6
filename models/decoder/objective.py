"""InfoNCE plus a regulariser over a whole batch, computed in as many parts as the memory asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.losses import (
    CachedSpladeLoss,
    SparseMultipleNegativesRankingLoss,
    SpladeLoss,
)
from torch import Tensor

from models.decoder.recipe import DecoderRecipe
from models.training.regularisers import NoRegulariser, Regulariser, make_regulariser


class Objective(CachedSpladeLoss):
    """SpladeLoss that turns into its gradient-cached form (arXiv 2101.06983) once `mini_batch_size` is below the batch.

    Both give the same gradients: the negatives are those of the whole batch, however few rows are computed at once.
    """

    def __init__(self, model: SparseEncoder, recipe: DecoderRecipe, idf: Tensor) -> None:
        regulariser = make_regulariser(recipe.regulariser, idf=idf, threshold=recipe.l0_threshold)
        super().__init__(
            model,
            SparseMultipleNegativesRankingLoss(model, scale=recipe.score_scale),
            document_regularizer_weight=recipe.regulariser_weight,
            document_regularizer=Watched(regulariser),
            # The table is no output of a model; without a term of its own, sentence-transformers warns of it.
            query_regularizer_weight=0.0,
            query_regularizer=NoRegulariser(),
            mini_batch_size=recipe.mini_batch or recipe.batch,
        )

    @property
    def active(self) -> float:
        """The mean number of weights of a document, of the last batch."""
        return float(self.document_regularizer.active)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> dict[str, Tensor]:
        features = list(sentence_features)
        whole = self.mini_batch_size >= features[0]["input_ids"].shape[0]
        # (a forward may write into what it is given, and a batch may have to be computed a second time)
        features = [dict(column) for column in features]
        kind = SpladeLoss if whole else CachedSpladeLoss
        losses: dict[str, Tensor] = kind.forward(self, features, labels)
        return losses


class Watched(Regulariser):
    """A regulariser that remembers how many weights the documents of its last batch had."""

    def __init__(self, regulariser: Regulariser) -> None:
        super().__init__()
        self.regulariser = regulariser
        self.active = torch.tensor(float("nan"))

    def penalty(self, weights: Tensor) -> Tensor:
        self.active = (weights.detach() > 0).sum(dim=1).float().mean()
        return self.regulariser.penalty(weights)
