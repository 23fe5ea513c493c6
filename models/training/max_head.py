"""The vocabulary head with its maximum over positions, without the [documents, length, vocabulary] tensor between.

A document's weight of piece j is activation(max over its positions of (h E^T + b)_j). Only one position of a document
and piece decides it, so that is all that is kept for the backward pass, and all that gradient flows through. The
product is taken in blocks: at 2,048 positions and 1,024 pieces a block has 8 MB, where 32 passages of 192 pieces would
have 750 MB in float32, twice with the gradient. On CUDA the product and its maximum are one kernel
(`models.training.triton_head`); here is the form for every device, which that one is tested against, and which a GPU
gets where the kernel cannot be built.

Tokens come packed, [tokens, width] with the documents one after the other, or padded with a mask.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.onnx_encoder import batch_by_length
from models.training import triton_head
from models.training.recipe import Activation

# Positions and pieces of a block on the CPU: with 1,024 pieces the maximum cost 13 % over the bare product on one
# core, with 4,096 up to 25 %. A GPU wants larger products.
BLOCK_POSITIONS = 2048
BLOCK_PIECES = 1024
GPU_BLOCK_PIECES = 8192


def max_head(
    states: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: Activation = "log1p_relu"
) -> Tensor:
    """Document weights [documents, vocabulary], float32, of padded states.

    `states` [documents, length, width]; `mask` [documents, length] is not zero where a position counts, anywhere and in
    any number (a document without any weighs nothing); `weight` [vocabulary, width], `bias` [vocabulary].
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
    """Document weights [documents, vocabulary], float32, of packed states.

    `states` [tokens, width]; document i has the tokens from `offsets[i]` to `offsets[i + 1]`, `offsets` an integer
    tensor [documents + 1] that begins with 0 and ends with the number of tokens. The product is computed in the type
    of `states` (of autocast inside it), sums of gradients in float32. Where positions tie, one of them gets the
    gradient.
    """
    kind = states.device.type
    if torch.is_autocast_enabled(kind):
        states = states.to(torch.get_autocast_dtype(kind))
    # inside the function gradients are always off, and what its inputs need does not know of no_grad
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
        wanted = learning and any(ctx.needs_input_grad[:3])
        with torch.autocast(states.device.type, enabled=False):
            largest, places = largest_logits(states, weight, offsets, places=wanted)
            if bias is not None:
                largest += bias.float()
            weights = largest.relu_().log1p_()
            if activation == "log1p_log1p_relu":
                weights.log1p_()
        if wanted:
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
    """For each document and piece the largest logit, float32, and the token that has it, int32 (empty if not asked).

    A document without tokens has -inf and the token 0.
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
        columns = states[tokens.flatten()].T
        for start in range(0, size, step):
            part = weight[start : start + step].to(states.dtype)
            logits = (part @ columns).view(-1, *tokens.shape)
            if places:
                best, position = logits.max(dim=2)
                where[documents, start : start + step] = tokens.gather(1, position.T).int()
            else:
                best = logits.amax(dim=2)
            largest[documents, start : start + step] = best.T.float()
    return largest, where


def _token_positions(documents: Tensor, offsets: Tensor, lengths: Tensor) -> Tensor:
    """The tokens of each document, [documents, longest]; shorter ones repeat their last: that moves no maximum."""
    most = lengths[documents]
    steps = torch.arange(int(most.max()), device=offsets.device)
    tokens: Tensor = offsets[documents, None] + torch.minimum(steps[None], most[:, None] - 1)
    return tokens


def _sum_by_target(table: Tensor, rows: Tensor, factors: Tensor, targets: Tensor, size: int) -> Tensor:
    """[size, width] float32: for each target the sum of `factors` x `table[rows]` over the entries that name it.

    The products are summed as they are made ([entries, width] is never there: early in training a document has
    thousands of weights), in a fixed order, so the same batch gives the same gradient.
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
