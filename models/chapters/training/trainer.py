"""transformers' trainer on answers alone, with an answer to NaN."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback, Trainer, TrainingArguments

from models.chapters.training.examples import Example
from models.chapters.training.feeding import IGNORED, Feeding
from models.chapters.training.recipe import ChapterRecipe
from models.decoder.trainable import load_trainable, save_trainable
from models.training.device import out_of_memory
from models.training.trainer import Watch, kept, not_finite
from services.errors import ConfigurationError


class AnswerTrainer(Trainer):
    """Learns the answers of examples. Checkpoints hold what is trained and the optimiser.

    `train` raises ConfigurationError: `training_diverged`, `out_of_memory`; the checkpoints before stay as they are.
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over all pieces of the batch's answers, over however many runs it is spread."""
        given = dict(inputs)
        labels: Tensor = given.pop("labels")
        if "decoder_input_ids" in given:
            logits = model(**given).logits
        else:
            # The vocabulary's head is half of a small model's work, and answers are one piece in thirty.
            answered = int((labels != IGNORED).any(0).sum())
            if _keeps_logits(model):
                given["logits_to_keep"] = answered + 1
            logits = model(**given, use_cache=False).logits[:, -answered - 1 : -1]
            labels = labels[:, -answered:]
        lost = cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        count = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        loss = lost / count
        return (loss, {}) if return_outputs else loss

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:
        try:
            loss: Tensor = super().training_step(*arguments, **named)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise ConfigurationError(
                "out_of_memory",
                "Memory does not hold a step: lower mini_batch or part_pieces, or set checkpoint_layers.",
            ) from None
        if not torch.isfinite(loss):
            raise not_finite("loss", self.state.global_step + 1, kept(Path(self.args.output_dir)))
        return loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        save_trainable(self.model, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trainable(self.model, Path(resume_from_checkpoint))


def make_trainer(
    model: Any, data: list[Example], feeding: Feeding, recipe: ChapterRecipe, work: Path, watch: Watch
) -> AnswerTrainer:
    """The trainer of a recipe; `work` gets the checkpoints."""
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.mini_batch,
        gradient_accumulation_steps=recipe.batch // recipe.mini_batch,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.gradient_norm,
        warmup_steps=round(recipe.warmup * recipe.steps),
        save_strategy="steps",
        save_steps=recipe.save_every,
        save_total_limit=2,
        logging_steps=min(5, recipe.save_every),
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        seed=recipe.seed,
    )
    trainer = AnswerTrainer(model=model, args=arguments, train_dataset=data, data_collator=feeding, callbacks=[watch])
    trainer.remove_callback(PrinterCallback)
    return trainer


def _keeps_logits(model: Any) -> bool:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters
