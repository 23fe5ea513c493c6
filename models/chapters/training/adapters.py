"""Low-rank adapters on every linear layer of a generator (LoRA, arXiv 2106.09685), by peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model

from models.chapters.training.recipe import ChapterRecipe


def add_adapters(model: Any, recipe: ChapterRecipe) -> Any:
    """The model with adapters on all linear layers but the vocabulary's; all else is frozen."""
    kind = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    config = LoraConfig(
        task_type=kind, r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules="all-linear"
    )
    adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            # A step of 1e-4 on a weight of 0.1 is less than bfloat16 can add.
            parameter.data = parameter.data.float()
    return adapted


def merged(model: Any, recipe: ChapterRecipe) -> Any:
    """The plain model with what was learned in it."""
    return model.merge_and_unload() if recipe.rank else model


def save_adapters(model: Any, directory: Path) -> None:
    """Two files of peft's: half as long in bfloat16, which changes no title that was looked at."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    model.save_pretrained(str(directory), safe_serialization=True)
    (directory / "README.md").unlink(missing_ok=True)  # peft's card has nothing to say
