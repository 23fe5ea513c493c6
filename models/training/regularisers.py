"""Terms that keep document vectors sparse, in the form that sentence-transformers' SpladeLoss calls.

`SpladeLoss(..., document_regularizer=Flops())` and `CachedSpladeLoss` hand over the weights of a batch's documents,
[documents, vocabulary], and multiply what comes back with lambda. NaN stays NaN: whoever trains watches the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


class _Masked(Regulariser):
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


class Flops(_Masked):
    """FLOPS (arXiv 2004.05665): sum_j (mean_i w_ij)^2, with weight w of document i and piece j.

    Beside IDF in the weights of the query's match, this is the second form of arXiv 2411.04403.
    """

    def penalty(self, weights: Tensor) -> Tensor:
        return self.counted(weights).mean(dim=0).square().sum()


class IdfFlops(_Masked):
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


class L1(Regulariser):
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
        return L1()
    if name == "flops":
        return Flops(threshold)
    if name != "idf_flops":
        raise ConfigurationError("bad_recipe", f"There is no regulariser {name!r}: none, flops, idf_flops or l1.")
    if idf is None:
        raise ConfigurationError(
            "bad_idf", "The regulariser idf_flops needs an IDF table: idf.json beside the start, or that of passages."
        )
    return IdfFlops(idf, threshold)
