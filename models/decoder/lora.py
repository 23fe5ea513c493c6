"""Low-rank adapters on a decoder's projections (LoRA, arXiv 2106.09685) by peft, and weights with them merged."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor

# Attention and feed-forward projections: arXiv 2408.11119, section 4.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ADAPTER = "default"


def add_adapters(decoder: Any, *, rank: int, alpha: int, dropout: float) -> int:
    """Puts adapters on the projections of a decoder, in place, and freezes all else; how many parameters they have."""
    decoder.requires_grad_(False)
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(PROJECTIONS)), decoder
    )
    added = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
    for parameter in added:
        # peft gives them the type of the layer. A step of 1e-4 on a weight of 0.1 is less than bfloat16 can add.
        parameter.data = parameter.data.float()
    return sum(parameter.numel() for parameter in added)


@torch.no_grad()
def merged_state(decoder: Any) -> dict[str, Tensor]:
    """The decoder's tensors under the names of a decoder without adapters, with the adapters added in.

    The live decoder is left as it is; tensors without an adapter are not copied. Sums are on the processor: all of them
    at once on a GPU would take the decoder's size again there, after a training that just fitted.
    """
    layers = {name: module for name, module in decoder.named_modules() if isinstance(module, LoraLayer)}
    state: dict[str, Tensor] = {}
    for name, tensor in decoder.state_dict().items():
        if ".lora_" in name:
            continue
        owner, _, rest = name.partition(".base_layer.")
        if not rest:
            state[name] = tensor
            continue
        delta = layers[owner].get_delta_weight(ADAPTER)
        state[f"{owner}.{rest}"] = (tensor.float() + delta.float()).to("cpu", tensor.dtype)
    return state
