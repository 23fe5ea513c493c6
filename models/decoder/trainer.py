"""sentence-transformers' trainer with small checkpoints, and an answer to NaN, dead documents and little memory."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.training_args import BatchSamplers
from sentence_transformers.sparse_encoder import SparseEncoderTrainer, SparseEncoderTrainingArguments
from sentence_transformers.sparse_encoder.callbacks.splade_callbacks import SpladeRegularizerWeightSchedulerCallback
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback

from models.decoder.objective import Objective
from models.decoder.recipe import DecoderRecipe
from models.decoder.trainable import load_trainable, save_trainable
from models.training.device import free_memory, out_of_memory
from services.errors import ConfigurationError

log = logging.getLogger("models.decoder")
Heard = Callable[[dict[str, float]], None]


class DecoderTrainer(SparseEncoderTrainer):
    """Trains an `Objective`. Checkpoints hold what is trained and the optimiser, not the frozen decoder.

    `train` raises ConfigurationError: `loss_not_finite`, `no_active_pieces`, `out_of_memory`; the checkpoints before
    stay as they are.
    """

    loss: Objective

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        while True:
            try:
                # (a step takes the names of datasets out of what it is given)
                loss: Tensor = super().training_step(model, dict(inputs), num_items_in_batch)
                break
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            # outside of the handler, where the error's frames no longer hold the tensors
            self._halve(int(inputs["query_input_ids"].shape[0]))
        step = self.state.global_step + 1
        if not torch.isfinite(loss):
            raise ConfigurationError(
                "loss_not_finite",
                f"The loss of step {step} is {float(loss)}. The checkpoints before it in {self.args.output_dir} are "
                "good: go on from the trained parameters of one of them (--adapters) with a lower learning rate, or "
                "with precision float32.",
            )
        if self.loss.active == 0:
            raise ConfigurationError(
                "no_active_pieces",
                f"No document of step {step} has a weight above zero, so nothing can be learned any more (dying "
                f"ReLU). The checkpoints before it in {self.args.output_dir} are good: go on from the trained "
                "parameters of one of them (--adapters) with a lower regulariser weight or learning rate, or begin "
                "with more active pieces.",
            )
        return loss

    def _halve(self, rows: int) -> None:
        self.model.zero_grad()
        self.optimizer.zero_grad()
        free_memory()
        size = min(rows, self.loss.mini_batch_size)
        if size <= 1:
            raise ConfigurationError(
                "out_of_memory",
                "The memory is not enough for one pair: shorten passages (passage_pieces), compute activations again "
                "(checkpoint_layers), or take a device with more memory.",
            )
        self.loss.mini_batch_size = size // 2
        log.warning("out of memory: %d pairs are computed at once from now on", self.loss.mini_batch_size)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        save_trainable(self.model, Path(output_dir or self.args.output_dir))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except OSError as error:
            unfinished = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            shutil.rmtree(unfinished, ignore_errors=True)
            raise ConfigurationError(
                "checkpoint_not_written",
                f"The checkpoint of step {self.state.global_step} could not be written ({error}); those before it are "
                "whole. Make room and run the same command again.",
            ) from None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trainable(self.model, Path(resume_from_checkpoint))

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """No card: the manifest and the record say what was trained."""


class Heed(TrainerCallback):
    """Hands every logged line on, with the mean number of weights a document and the time a step."""

    def __init__(self, objective: Objective, heard: Heard) -> None:
        self._objective, self._heard = objective, heard
        self._at, self._step = time.monotonic(), 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._at, self._step = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        now = time.monotonic()
        steps = max(1, state.global_step - self._step)
        line = {
            "step": float(state.global_step),
            "loss": float(logs["loss"]),
            "ranking": float(logs.get("base_loss", float("nan"))),
            "regulariser": float(logs.get("document_regularizer_loss", float("nan"))),
            "active": self._objective.active,
            "seconds_a_step": round((now - self._at) / steps, 3),
        }
        self._at, self._step = now, state.global_step
        self._heard(line)


def make_trainer(
    model: Any, objective: Objective, dataset: Any, recipe: DecoderRecipe, work: Path, heard: Heard
) -> DecoderTrainer:
    """The trainer of a recipe; `dataset` has the columns query and passage, `work` gets the checkpoints."""
    rates = {r"document.*\.bias$": recipe.bias_learning_rate}
    if recipe.query_weighting == "learned":
        rates[r"query.*\.weight$"] = recipe.table_learning_rate
    arguments = SparseEncoderTrainingArguments(
        output_dir=str(work),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch,
        learning_rate=recipe.learning_rate,
        learning_rate_mapping=rates,
        weight_decay=recipe.weight_decay,
        warmup_steps=round(recipe.warmup * recipe.steps),
        save_strategy="steps",
        save_steps=recipe.save_every,
        save_total_limit=2,
        logging_steps=recipe.log_every,
        logging_nan_inf_filter=False,
        router_mapping={"query": "query", "passage": "document"},
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        dataloader_drop_last=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        seed=recipe.seed,
    )
    trainer = DecoderTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        loss=objective,
        callbacks=[
            SpladeRegularizerWeightSchedulerCallback(objective, "quadratic", recipe.regulariser_ramp),
            Heed(objective, heard),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
