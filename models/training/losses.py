"""What the encoder learns from: scores of teachers over the passages of a batch, and which passage is a query's own.

Terms that keep document vectors sparse, in the form that sentence-transformers' SpladeLoss calls.

`SpladeLoss(..., document_regularizer=Flops())` and `CachedSpladeLoss` hand over the weights of a batch's documents,
[documents, vocabulary], and multiply what comes back with lambda. NaN stays NaN: whoever trains watches the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.errors import ConfigurationError

# A piece of nine passages in ten has an IDF of 0.105. Below that the penalty, which grows with 1 / idf^2, would be
# above a hundred times that of a piece with IDF 1, and a piece of every passage would divide by zero.
IDF_FLOOR = 0.1


class Regulariser(nn.Module):
    """A scalar of the document weights of one batch. Zero for a batch without documents."""

    def compute_loss_from_embeddings(self, embeddings: Tensor) -> Tensor:
        """`embeddings` [documents, vocabulary], dense or of a sparse layout. Returns a scalar with its gradient."""
        weights = embeddings if embeddings.layout == torch.strided else embeddings.to_dense()
        if weights.shape[0] == 0:
            return weights.sum()
        return self.penalty(weights)

    def penalty(self, weights: Tensor) -> Tensor:
        """The term itself, of dense weights [documents, vocabulary] with one document at least."""
        raise NotImplementedError


class _MaskedRegulariser(Regulariser):
    """A term that leaves out documents which are sparse already: the l0 mask of arXiv 2504.14839.

    Only documents with more than `threshold` weights count; the mean is still over all documents of the batch.
    """

    def __init__(self, threshold: int | None = None) -> None:
        super().__init__()
        if threshold is not None and threshold < 0:
            raise ConfigurationError("bad_recipe", f"An l0 threshold is 0 or more weights a document, not {threshold}.")
        self.threshold = threshold

    def counted(self, weights: Tensor) -> Tensor:
        if self.threshold is None:
            return weights
        dense_enough = (weights != 0).sum(dim=1, keepdim=True) > self.threshold
        # NaN times zero is NaN, as it should be: NaN is not zero, so it counts as a weight too.
        return weights * dense_enough


class FlopsRegulariser(_MaskedRegulariser):
    """FLOPS (arXiv 2004.05665): sum_j (mean_i w_ij)^2, with weight w of document i and piece j.

    Beside IDF in the weights of the query's match, this is the second form of arXiv 2411.04403.
    """

    def penalty(self, weights: Tensor) -> Tensor:
        return self.counted(weights).mean(dim=0).square().sum()


class IdfFlopsRegulariser(_MaskedRegulariser):
    """IDF-aware FLOPS, the first form of arXiv 2411.04403: sum_j (mean_i w_ij / idf_j)^2.

    Common pieces are pushed down harder than rare ones. `idf` [vocabulary] is raised to `floor` where it is lower.
    """

    def __init__(self, idf: Tensor, threshold: int | None = None, floor: float = IDF_FLOOR) -> None:
        super().__init__(threshold)
        if idf.ndim != 1 or not torch.isfinite(idf).all():
            raise ConfigurationError(
                "bad_idf", "IDF-aware FLOPS needs one finite IDF for each piece of the vocabulary."
            )
        self.register_buffer("scale", 1.0 / idf.detach().float().clamp(min=floor), persistent=False)

    def penalty(self, weights: Tensor) -> Tensor:
        if weights.shape[1] != self.scale.shape[0]:
            raise ConfigurationError(
                "bad_idf",
                f"The IDF table is about {self.scale.shape[0]:,} pieces and the weights about {weights.shape[1]:,}: it "
                "belongs to another tokeniser.",
            )
        mean = self.counted(weights).mean(dim=0)
        return (mean * self.scale.to(mean.device)).square().sum()


class L1Regulariser(Regulariser):
    """The mean sum of a document's weights: sum_j mean_i |w_ij|."""

    def penalty(self, weights: Tensor) -> Tensor:
        return weights.abs().sum(dim=1).mean()


class NoRegulariser(Regulariser):
    """Nothing: zero, with a gradient of zero."""

    def penalty(self, weights: Tensor) -> Tensor:
        return weights.sum() * 0.0


def make_regulariser(name: str, *, idf: Tensor | None = None, threshold: int | None = None) -> Regulariser:
    """The regulariser of a recipe: `none`, `flops`, `idf_flops` (needs `idf`) or `l1`.

    Raises ConfigurationError (`bad_recipe`, `bad_idf`).
    """
    if name == "none":
        return NoRegulariser()
    if name == "l1":
        return L1Regulariser()
    if name == "flops":
        return FlopsRegulariser(threshold)
    if name != "idf_flops":
        raise ConfigurationError("bad_recipe", f"There is no regulariser {name!r}: none, flops, idf_flops or l1.")
    if idf is None:
        raise ConfigurationError(
            "bad_idf", "The regulariser idf_flops needs an IDF table: idf.json beside the start, or that of passages."
        )
    return IdfFlopsRegulariser(idf, threshold)


class RankingLoss(nn.Module):
    """KL divergence from the teachers' distribution plus cross entropy of the pair's own passage.

    Heterogeneous distillation of arXiv 2411.04403 (section 4.2), over every passage of the batch: each query is held
    against its own passage, its hard negatives and all those of the other queries. The teachers' scores arrive min-max
    scaled, summed and times a scale (`models.training.teachers`).
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
        queries = _to_dense(embeddings[0])
        passages = torch.cat([_to_dense(column) for column in embeddings[1:]])
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


def _to_dense(embeddings: Tensor) -> Tensor:
    return embeddings.to_dense() if embeddings.layout != torch.strided else embeddings
