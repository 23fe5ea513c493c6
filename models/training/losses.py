"""What the encoder learns from: scores of teachers over the passages of a batch, and which passage is a query's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RankingLoss(nn.Module):
    """KL divergence from the teachers' distribution plus cross entropy of the pair's own passage.

    Heterogeneous distillation of arXiv 2411.04403 (section 4.2), over every passage of the batch: each query is held
    against its own passage, its hard negatives and all those of the other queries. The teachers' scores arrive min-max
    scaled, summed and times a scale (`models.training.teachers.ensemble`).
    """

    def __init__(self, contrastive_weight: float, *, distils: bool) -> None:
        super().__init__()
        # (beside distillation; alone it would only make the regulariser three times as strong)
        self.contrastive_weight = contrastive_weight if distils else 1.0
        self.distils = distils

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> dict[str, Tensor]:
        """`embeddings` are the queries [B, V], then the columns of passages [B, V]: own ones first, then negatives.

        `labels` is float32 [B, 2, M] for M passages column by column: the targets, and a mask that is 0 where a
        passage answers the query as well as its own does, so that it must not count as a negative.
        """
        if labels is None:
            raise ValueError("RankingLoss needs labels: the targets and the mask of a batch")
        queries = _dense(embeddings[0])
        passages = torch.cat([_dense(column) for column in embeddings[1:]])
        # float32 whatever the encoder computes in: bfloat16 has three digits, and scores reach a hundred
        with torch.autocast(queries.device.type, enabled=False):
            scores = queries.float() @ passages.float().T
            targets, counted = labels[:, 0].float(), labels[:, 1] > 0
            scores = scores.masked_fill(~counted, -torch.inf)
            found: dict[str, Tensor] = {}
            if self.distils:
                found["distillation"] = _divergence(scores, targets.masked_fill(~counted, -torch.inf))
            if self.contrastive_weight:
                own = torch.arange(len(scores), device=scores.device)
                found["contrastive"] = self.contrastive_weight * functional.cross_entropy(scores, own)
        return found


def _divergence(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean over queries of KL(teachers || student); entries of -inf in both count for nothing."""
    student, teacher = scores.log_softmax(1), targets.log_softmax(1)
    gap = torch.where(targets.isneginf(), 0.0, teacher.exp() * (teacher - student))
    return gap.sum(1).mean()


def _dense(embeddings: Tensor) -> Tensor:
    return embeddings.to_dense() if embeddings.layout != torch.strided else embeddings
