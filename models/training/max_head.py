"""Vocabulary head with a maximum over positions, without the [documents, length, vocabulary] tensor.

A document's weight of piece j is activation(max over its positions of (h E^T + b)_j). A single position decides the
weight of a document and piece, so the forward pass keeps only that position, and the backward pass sends gradient only
there. The product is computed in blocks: a block of 2,048 positions and 1,024 pieces has 8 MB, where the whole product
of 32 passages of 192 pieces has 750 MB in float32, twice with its gradient (docs/decisions/0102).

On CUDA the product and its maximum are one kernel (`models.training.triton_head`). This module computes in blocks on
every device: tests compare the kernel with it, and a GPU uses it where the kernel cannot be built.

Tokens are packed, [tokens, width] with the documents one after the other, or padded with a mask.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.onnx_encoder import batch_by_length
from models.training import triton_head
from models.training.recipe import Activation

# Positions and pieces of a block on the CPU: with 1,024 pieces the maximum added 13 % to the product on one core,
# with 4,096 up to 25 %. A GPU needs larger products.
BLOCK_POSITIONS = 2048
BLOCK_PIECES = 1024
GPU_BLOCK_PIECES = 8192


def max_head(
    states: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: Activation = "log1p_relu"
) -> Tensor:
    """Return document weights [documents, vocabulary], float32, from padded states.

    `states` [documents, length, width]; `mask` [documents, length] is non-zero for tokens, in any place and number (a
    document without tokens has no weights); `weight` [vocabulary, width], `bias` [vocabulary].
    """
    counted = mask.bool()
    lengths = counted.sum(dim=1)
    offsets = F.pad(lengths.cumsum(0), (1, 0))
    return max_head_packed(states[counted], offsets, weight, bias, activation=activation)


def max_head_packed(
    states: Tensor,
    offsets: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: Activation = "log1p_relu",
) -> Tensor:
    """Return document weights [documents, vocabulary], float32, from packed states.

    `states` [tokens, width]; document i has the tokens from `offsets[i]` to `offsets[i + 1]`. `offsets` is an integer
    tensor [documents + 1] from 0 to the number of tokens. The product is computed in the type of `states` (inside
    autocast, in its type), sums of gradients in float32. Where positions tie, one of them gets the gradient.
    """
    kind = states.device.type
    if torch.is_autocast_enabled(kind):
        states = states.to(torch.get_autocast_dtype(kind))
    # Inside an autograd function gradients are always off, and `needs_input_grad` ignores no_grad.
    learning = torch.is_grad_enabled()
    weights: Tensor = _MaxHead.apply(states, weight, bias, offsets, activation, learning)
    return weights


class _MaxHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        offsets: Tensor,
        activation: Activation,
        learning: bool,
    ) -> Tensor:
        needs_gradient = learning and any(ctx.needs_input_grad[:3])
        with torch.autocast(states.device.type, enabled=False):
            largest, places = largest_logits(states, weight, offsets, places=needs_gradient)
            if bias is not None:
                largest += bias.float()
            weights = largest.relu_().log1p_()
            if activation == "log1p_log1p_relu":
                weights.log1p_()
        if needs_gradient:
            ctx.activation = activation
            ctx.save_for_backward(states, weight, weights, places)
            ctx.bias_dtype = None if bias is None else bias.dtype
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, weights, places = ctx.saved_tensors
        documents, pieces = ((weights > 0) & (gradient != 0)).nonzero(as_tuple=True)
        chosen = weights[documents, pieces]
        # d/dx log1p(x) is exp(-log1p(x)); applied twice, the inner one is expm1 of the outer
        slope = -chosen if ctx.activation == "log1p_relu" else -chosen - chosen.expm1()
        flow = gradient[documents, pieces].float() * slope.exp()
        tokens = places[documents, pieces].long()
        to_states = to_weight = to_bias = None
        with torch.autocast(states.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                to_states = _sum_by_target(weight, pieces, flow, tokens, states.shape[0]).to(states.dtype)
            if ctx.needs_input_grad[1]:
                to_weight = _sum_by_target(states, tokens, flow, pieces, weight.shape[0]).to(weight.dtype)
            if ctx.needs_input_grad[2]:
                to_bias = torch.bincount(pieces, flow, minlength=weight.shape[0]).to(ctx.bias_dtype)
        return to_states, to_weight, to_bias, None, None, None


def largest_logits(states: Tensor, weight: Tensor, offsets: Tensor, *, places: bool) -> tuple[Tensor, Tensor]:
    """Return for each document and piece the largest logit, float32, and its token, int32 (empty unless `places`).

    A document without tokens has -inf and token 0.
    """
    if states.device.type == "cuda" and triton_head.is_supported(states.device):
        return triton_head.largest_logits(states, weight, offsets)
    lengths = offsets.diff()
    size = weight.shape[0]
    largest = torch.full((len(lengths), size), float("-inf"), dtype=torch.float32, device=states.device)
    where = torch.zeros((len(lengths), size) if places else (0,), dtype=torch.int32, device=states.device)
    sizes = lengths.tolist()
    filled = [document for document, length in enumerate(sizes) if length]
    step = BLOCK_PIECES if states.device.type == "cpu" else GPU_BLOCK_PIECES
    for batch in batch_by_length([sizes[document] for document in filled], BLOCK_POSITIONS):
        documents = torch.tensor([filled[row] for row in batch], device=states.device)
        tokens = _token_positions(documents, offsets, lengths)
        columns = states[tokens.flatten()].float().T
        for start in range(0, size, step):
            # The weights are rounded to the type of the states as in the kernel, the products are not: bfloat16 has
            # steps of 0.125 between 16 and 32, where the logits of decoders are.
            part = weight[start : start + step].to(states.dtype).float()
            logits = (part @ columns).view(-1, *tokens.shape)
            if places:
                best, position = logits.max(dim=2)
                where[documents, start : start + step] = tokens.gather(1, position.T).int()
            else:
                best = logits.amax(dim=2)
            largest[documents, start : start + step] = best.T.float()
    return largest, where


def _token_positions(documents: Tensor, offsets: Tensor, lengths: Tensor) -> Tensor:
    """Return the tokens of each document, [documents, longest]. Shorter documents repeat their last token, which
    changes no maximum.
    """
    sizes = lengths[documents]
    steps = torch.arange(int(sizes.max()), device=offsets.device)
    tokens: Tensor = offsets[documents, None] + torch.minimum(steps[None], sizes[:, None] - 1)
    return tokens


def _sum_by_target(table: Tensor, rows: Tensor, factors: Tensor, targets: Tensor, size: int) -> Tensor:
    """Return [size, width] float32: for each target the sum of `factors` x `table[rows]` over its entries.

    The sums are accumulated directly, without [entries, width] (early in training a document has thousands of weights),
    in a fixed order, so the same batch gives the same gradient.
    """
    order = targets.argsort(stable=True)
    counts = torch.bincount(targets, minlength=size)
    return F.embedding_bag(
        rows[order],
        table.float(),
        counts.cumsum(0) - counts,
        mode="sum",
        per_sample_weights=factors[order],
    )
