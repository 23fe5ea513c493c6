"""Losses of a training run: ranking loss, and regularisers that keep document vectors sparse.

`RankingLoss` is the heterogeneous distillation of arXiv 2411.04403 (section 4.2) with in-batch cross entropy. The
regularisers are FLOPS (arXiv 2004.05665), IDF-aware FLOPS (arXiv 2411.04403), l0-masked FLOPS (arXiv 2504.14839) and
L1.

sentence-transformers' SpladeLoss and CachedSpladeLoss call a regulariser with the document weights of a batch,
[documents, vocabulary], and multiply the result by lambda. NaN stays NaN: the trainer checks the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.errors import ConfigurationError

# A piece that nine passages in ten contain has an IDF of 0.105. The penalty grows with 1 / idf^2: below the floor it
# would exceed a hundred times the penalty of a piece with IDF 1, and a piece in every passage would divide by zero.
IDF_FLOOR = 0.1


class RankingLoss(nn.Module):
    """KL divergence from the teachers' distribution, plus cross entropy of the pair's own passage.

    Cross entropy runs over all passages of the batch: a query's own passage, its hard negatives, and the passages of
    all other queries. The divergence runs over those that all teachers have scored for the query: all of them, or its
    own candidates alone with a cross-encoder or a file of scores. `models.training.teachers` gives the teachers'
    scores, min-max scaled, summed and multiplied by a scale.
    """

    def __init__(self, contrastive_weight: float, *, distils: bool) -> None:
        super().__init__()
        # Without distillation a weight below 1 would only make the regulariser stronger relative to it.
        self.contrastive_weight = contrastive_weight if distils else 1.0
        self.distils = distils

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> dict[str, Tensor]:
        """Return the loss by term. `embeddings` are the queries [B, V], then the columns of passages [B, V], own
        passages first.

        `labels` is float32 [B, 3, M] for M passages in column order: the targets; a mask that is 0 where a passage is
        another answer of the query and so no negative; and a mask that is 0 also where a teacher has no score.
        """
        if labels is None:
            raise ValueError("RankingLoss needs labels: the targets and the mask of a batch")
        queries = _to_dense(embeddings[0])
        passages = torch.cat([_to_dense(column) for column in embeddings[1:]])
        # always float32: bfloat16 has three digits, and scores reach a hundred
        with torch.autocast(queries.device.type, enabled=False):
            scores = queries.float() @ passages.float().T
            losses: dict[str, Tensor] = {}
            if self.distils:
                losses["distillation"] = _divergence(scores, labels[:, 0].float(), labels[:, 2] > 0)
            if self.contrastive_weight:
                own = torch.arange(len(scores), device=scores.device)
                negatives = scores.masked_fill(labels[:, 1] == 0, -torch.inf)
                losses["contrastive"] = self.contrastive_weight * functional.cross_entropy(negatives, own)
        return losses


def _divergence(scores: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
    """Return the mean over queries of KL(teachers || student) over the `scored` passages of each.

    A query with fewer than two of them teaches nothing, and does not count.
    """
    teaches = scored.sum(1) > 1
    # A row without a passage has no distribution: NaN would reach every gradient, also through a product with zero.
    counted = torch.where(teaches[:, None], scored, True)
    student = scores.masked_fill(~counted, -torch.inf).log_softmax(1)
    teacher = targets.masked_fill(~counted, -torch.inf).log_softmax(1)
    gap = torch.where(counted, teacher.exp() * (teacher - student), 0.0)
    return (gap.sum(1) * teaches).sum() / teaches.sum().clamp(min=1)


def _to_dense(embeddings: Tensor) -> Tensor:
    return embeddings.to_dense() if embeddings.layout != torch.strided else embeddings


def make_regulariser(
    name: str, *, idf: Tensor | None = None, threshold: int | None = None, columns: int = 1
) -> Regulariser:
    """Make the regulariser of a recipe: `none`, `flops`, `idf_flops` (needs `idf`), `l1` or `top_k` (no penalty: the
    encoder itself keeps the heaviest weights).

    `columns`: the passages of each query, its own and its hard negatives; see `_MaskedRegulariser`.

    Raises ConfigurationError (`bad_recipe`, `bad_idf`).
    """
    if name in ("none", "top_k"):
        return NoRegulariser()
    if name == "l1":
        return L1Regulariser()
    if name == "flops":
        return FlopsRegulariser(threshold, columns)
    if name != "idf_flops":
        raise ConfigurationError(
            "bad_recipe", f"There is no regulariser {name!r}: none, flops, idf_flops, l1 or top_k."
        )
    if idf is None:
        raise ConfigurationError(
            "bad_idf",
            "The regulariser idf_flops needs an IDF table: idf.json beside the start, or a table of the passages.",
        )
    return IdfFlopsRegulariser(idf, threshold, columns)


class Regulariser(nn.Module):
    """Scalar penalty of the document weights of a batch; zero without documents.

    With `counts_weights`, `weights_a_document` is the mean number of weights in the last batch. Counting is off by
    default: it passes over the whole batch once more, and waits for a GPU.
    """

    counts_weights = False
    weights_a_document: float | None = None

    def compute_loss_from_embeddings(self, embeddings: Tensor) -> Tensor:
        """Return the penalty of `embeddings` [documents, vocabulary], dense or sparse, as a scalar with gradient."""
        weights = embeddings if embeddings.layout == torch.strided else embeddings.to_dense()
        if weights.shape[0] == 0:
            return weights.sum()
        if self.counts_weights:
            self.weights_a_document = float((weights.detach() > 0).sum()) / len(weights)
        return self.penalty(weights)

    def penalty(self, weights: Tensor) -> Tensor:
        """Return the penalty of dense weights [documents, vocabulary] of at least one document."""
        raise NotImplementedError


class _MaskedRegulariser(Regulariser):
    """Penalty by columns that leaves out sparse documents: the l0 mask of arXiv 2504.14839.

    Only documents with more than `threshold` weights count; the mean is still over all documents of a column. A batch
    has `columns` columns of documents, own passages first, then each hard negative. As in the code of arXiv 2411.04403,
    the mean is over the queries of a column, and the squares of the columns are added. So lambda has the authors' unit:
    one mean over all columns would be a penalty of a (1 + negatives)th or less.
    """

    def __init__(self, threshold: int | None = None, columns: int = 1) -> None:
        super().__init__()
        if columns < 1:
            raise ConfigurationError("bad_recipe", f"A batch has at least one column of documents, not {columns}.")
        self.columns = columns
        if threshold is not None and threshold < 0:
            raise ConfigurationError("bad_recipe", f"l0_threshold must be at least 0, not {threshold}.")
        self.threshold = threshold

    def counted(self, weights: Tensor) -> Tensor:
        if self.threshold is None:
            return weights
        dense_enough = (weights != 0).sum(dim=1, keepdim=True) > self.threshold
        # NaN differs from zero, so it counts as a weight; NaN times zero stays NaN, and the trainer sees it.
        return weights * dense_enough

    def column_means(self, weights: Tensor) -> Tensor:
        """Return the mean weight of each piece in each column, [columns, vocabulary]."""
        return self.counted(weights).view(self.columns, -1, weights.shape[1]).mean(dim=1)


class FlopsRegulariser(_MaskedRegulariser):
    """FLOPS (arXiv 2004.05665): sum_j (mean_i w_ij)^2, with weight w of document i and piece j, added over columns.

    With IDF in the query weights, this is the second form of arXiv 2411.04403.
    """

    def penalty(self, weights: Tensor) -> Tensor:
        return self.column_means(weights).square().sum()


class IdfFlopsRegulariser(_MaskedRegulariser):
    """IDF-aware FLOPS, the first form of arXiv 2411.04403: sum_j (mean_i w_ij / idf_j)^2, added over columns.

    Common pieces are penalised more than rare pieces. `idf` [vocabulary] is raised to `floor` where it is lower.
    """

    def __init__(self, idf: Tensor, threshold: int | None = None, columns: int = 1, floor: float = IDF_FLOOR) -> None:
        super().__init__(threshold, columns)
        if idf.ndim != 1 or not torch.isfinite(idf).all():
            raise ConfigurationError(
                "bad_idf", "IDF-aware FLOPS needs one finite IDF for each piece of the vocabulary."
            )
        self.register_buffer("scale", 1.0 / idf.detach().float().clamp(min=floor), persistent=False)

    def penalty(self, weights: Tensor) -> Tensor:
        if weights.shape[1] != self.scale.shape[0]:
            raise ConfigurationError(
                "bad_idf",
                f"The IDF table has {self.scale.shape[0]:,} pieces and the weights have {weights.shape[1]:,}: the "
                "table belongs to another tokeniser.",
            )
        means = self.column_means(weights)
        return (means * self.scale.to(means.device)).square().sum()


class L1Regulariser(Regulariser):
    """Mean L1 norm of a document: sum_j mean_i |w_ij|."""

    def penalty(self, weights: Tensor) -> Tensor:
        return weights.abs().sum(dim=1).mean()


class NoRegulariser(Regulariser):
    """Penalty of zero, with a gradient of zero."""

    def penalty(self, weights: Tensor) -> Tensor:
        return weights.sum() * 0.0
