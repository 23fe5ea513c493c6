"""Low-rank adapters on every linear layer of a generator (LoRA, arXiv 2106.09685), as files of peft's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model


@contextmanager
def _quiet() -> Iterator[None]:
    """peft asks models by a name that transformers 5 calls outdated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


def add_adapters(model: Any, rank: int, alpha: int, dropout: float) -> Any:
    """The model with adapters on all linear layers but the vocabulary's; all else is frozen."""
    kind = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    config = LoraConfig(task_type=kind, r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear")
    with _quiet():
        adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            # A step of 1e-4 on a weight of 0.1 is less than bfloat16 can add.
            parameter.data = parameter.data.float()
    return adapted


def save_adapters(model: Any, directory: Path) -> None:
    """In bfloat16: half as long, and what serves them adds them to weights of that type anyway."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    for config in model.peft_config.values():
        config.base_model_name_or_path = ""  # a path of this machine; the manifest names the base
        config.target_modules = sorted(config.target_modules)  # (a set is written in another order each time)
    with _quiet():
        # (to see whether embeddings were changed too, peft would ask a hub)
        model.save_pretrained(str(directory), safe_serialization=True, save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)  # peft's card has nothing to say


def with_adapters(model: Any, directory: Path) -> Any:
    """The plain model with the adapters of a directory added in, on the processor."""
    with _quiet():
        return PeftModel.from_pretrained(model, str(directory), torch_device="cpu").merge_and_unload()
