"""A transformer body on packed tokens: [1, tokens] without padding, attention kept within each document.

The body stays transformers' own; only its attention function is replaced, by the interface that transformers offers
for it. On CUDA in half precision that is PyTorch's variable-length attention, elsewhere the tokens are padded for the
attention alone: every linear layer, which is nearly all of the work, sees no padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "packed"


@dataclass(frozen=True)
class Packing:
    """Where packed tokens come from: a batch [documents, length] of which `counted` says what is a token.

    `offsets` int64 [documents + 1]: document i has the tokens from offsets[i] to offsets[i + 1]. `positions` [tokens]:
    the place of each in its row. `rows` [documents, longest] holds the tokens of each document, the last repeated, and
    `real` is true where it is not a repetition.
    """

    counted: Tensor
    offsets: Tensor
    positions: Tensor
    rows: Tensor
    real: Tensor
    longest: int

    @classmethod
    def of(cls, mask: Tensor) -> Packing:
        """The packing of a mask [documents, length], not zero where a token stands."""
        counted = mask.bool()
        lengths = counted.sum(dim=1)
        offsets = F.pad(lengths.cumsum(0), (1, 0))
        longest = int(lengths.max()) if len(lengths) else 0
        steps = torch.arange(longest, device=mask.device)[None]
        last = (lengths - 1).clamp(min=0)[:, None]
        rows = (offsets[:-1, None] + torch.minimum(steps, last)).clamp(max=max(int(offsets[-1]) - 1, 0))
        positions = torch.arange(mask.shape[1], device=mask.device).expand_as(counted)[counted]
        return cls(counted, offsets, positions, rows, steps < lengths[:, None], longest)


def packed_states(body: nn.Module, input_ids: Tensor, packing: Packing) -> Tensor:
    """The last hidden states of the tokens, [tokens, width], of a body with the attention `packed`."""
    ids = input_ids[packing.counted]
    if len(ids) == 0:
        return torch.zeros(0, body.config.hidden_size, device=input_ids.device)
    states: Tensor = body(
        input_ids=ids[None], attention_mask=None, position_ids=packing.positions[None], packing=packing
    )[0][0]
    return states


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within each document. `query`, `key`, `value` are [1, heads, tokens, channels]; returns [1, tokens,
    heads, channels]. Without `packing` it is transformers' own, on padded batches."""
    if packing is None:
        mixed: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return mixed
    scaling, dropout = kwargs.get("scaling"), kwargs.get("dropout", 0.0)
    queries, keys, values = (one[0].transpose(0, 1) for one in (query, key, value))
    # the fused kernel has no dropout of its own
    if query.device.type == "cuda" and query.dtype in (torch.float16, torch.bfloat16) and not dropout:
        from torch.nn.attention.varlen import varlen_attn

        ends, longest = packing.offsets.to(torch.int32), packing.longest
        out = varlen_attn(
            queries.contiguous(), keys.contiguous(), values.contiguous(), ends, ends, longest, longest, scale=scaling
        )
        return out[None], None
    out = F.scaled_dot_product_attention(
        queries[packing.rows].transpose(1, 2),
        keys[packing.rows].transpose(1, 2),
        values[packing.rows].transpose(1, 2),
        attn_mask=packing.real[:, None, None, :],
        dropout_p=dropout,
        scale=scaling,
    )
    return out.transpose(1, 2)[packing.real][None], None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
