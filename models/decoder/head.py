"""The vocabulary head with its maximum over positions, without the tensor of positions x vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Logits alive at once: 64 MB in float32. A batch of 32 second copies of 512 pieces over 49,152 pieces would be 3.2 GB.
LOGITS_AT_ONCE = 16 * 1024 * 1024


def largest_logits(hidden: Tensor, mask: Tensor, weight: Tensor, *, at_once: int = LOGITS_AT_ONCE) -> Tensor:
    """max over the positions i with `mask` of hidden_i . weight_j, float32 [rows, vocabulary].

    `hidden` [rows, length, width], `mask` [rows, length], `weight` [vocabulary, width]. -inf for a row without a
    position. The vocabulary is taken in slices of at most `at_once` logits; with gradients they are computed again in
    the backward pass instead of being kept.
    """
    hidden, mask = second_copies(hidden, mask)
    step = max(1, at_once // max(1, mask.numel()))
    slices = [weight[first : first + step] for first in range(0, weight.shape[0], step)]
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        parts = [checkpoint(_largest, hidden, mask, part, use_reentrant=False) for part in slices]
    else:
        parts = [_largest(hidden, mask, part) for part in slices]
    return torch.cat(parts, dim=1)


def _largest(hidden: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    logits = hidden @ weight.to(hidden.dtype).T
    return logits.masked_fill(~mask[:, :, None], -torch.inf).amax(dim=1).float()


def second_copies(hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Only the positions with `mask`, which are neighbours in every row: [rows, longest, width] and their mask.

    Half of the positions of an echo are never pooled; the product with the vocabulary is most of the work.
    """
    mask = mask.bool()
    counts = mask.sum(dim=1)
    longest = max(1, int(counts.max()))
    within = torch.arange(longest, device=mask.device)[None, :]
    positions = (mask.int().argmax(dim=1)[:, None] + within).clamp(max=mask.shape[1] - 1)
    gathered = hidden.gather(1, positions[:, :, None].expand(-1, -1, hidden.shape[2]))
    return gathered, within < counts[:, None]
