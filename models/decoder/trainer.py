"""Steps of a decoder's training, on sentence-transformers' trainer: objective, trainer and small checkpoints.

`SpladeObjective` is InfoNCE plus a regulariser over a whole batch, in as many parts as memory requires (arXiv
2101.06983). `DecoderTrainer` stops on NaN and on dead documents, and halves its mini batch when memory runs out.
Checkpoints hold the trained parameters (adapters, bias, learned table) without the frozen decoder. See
docs/decisions/0100 and 0124.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder
from sentence_transformers.base.training_args import BatchSamplers
from sentence_transformers.sparse_encoder import SparseEncoderTrainer, SparseEncoderTrainingArguments
from sentence_transformers.sparse_encoder.callbacks.splade_callbacks import SpladeRegularizerWeightSchedulerCallback
from sentence_transformers.sparse_encoder.losses import CachedSpladeLoss, SparseMultipleNegativesRankingLoss, SpladeLoss
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerCallback

from models.decoder.recipe import DecoderRecipe
from models.training.batches import column_sides
from models.training.losses import NoRegulariser, Regulariser, make_regulariser
from models.training.trainer import free_memory, is_out_of_memory
from services.errors import ConfigurationError, InvalidInput

log = logging.getLogger("models.decoder")
TRAINABLE_FILE = "trainable.safetensors"
TRAINER_STATE_FILE = "trainer_state.json"
LogListener = Callable[[dict[str, float]], None]


def make_decoder_trainer(
    model: Any, objective: SpladeObjective, dataset: Any, recipe: DecoderRecipe, work: Path, listener: LogListener
) -> DecoderTrainer:
    """Make the trainer of a recipe. `dataset` has the columns of `column_sides`; checkpoints go to `work`."""
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
        router_mapping=column_sides(recipe.negatives),
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
            LogCallback(objective, listener),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class DecoderTrainer(SparseEncoderTrainer):
    """Trainer of a `SpladeObjective`. Checkpoints hold trained parameters and optimiser, not the frozen decoder.

    `train` raises ConfigurationError: `loss_not_finite`, `no_active_pieces`, `out_of_memory`, `checkpoint_not_written`.
    Earlier checkpoints stay valid.
    """

    loss: SpladeObjective

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        while True:
            try:
                # Pass a copy, because a step removes dataset names from its inputs.
                loss: Tensor = super().training_step(model, dict(inputs), num_items_in_batch)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # This runs outside the handler, where the error's frames no longer hold the tensors.
            self._halve(int(inputs["query_input_ids"].shape[0]))
        step = self.state.global_step + 1
        if not torch.isfinite(loss):
            raise ConfigurationError(
                "loss_not_finite",
                f"The loss of step {step} is {float(loss)}. Earlier checkpoints in {self.args.output_dir} are good: "
                "continue from one of them (--adapters) with a lower learning rate, or with precision float32.",
            )
        if self.loss.active == 0:
            raise ConfigurationError(
                "no_active_pieces",
                f"No document of step {step} has a weight above zero, so training cannot continue (dying ReLU). "
                f"Earlier checkpoints in {self.args.output_dir} are good: continue from one of them (--adapters) with "
                "a lower regulariser weight or learning rate, or start again with more active pieces.",
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
                "There is not enough memory for one pair: shorten passages (passage_pieces), compute activations again "
                "(checkpoint_layers), or take a device with more memory.",
            )
        self.loss.mini_batch_size = size // 2
        log.warning("out of memory: from now on %d pairs are computed at once", self.loss.mini_batch_size)

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
                f"The checkpoint of step {self.state.global_step} could not be written ({error}). Earlier checkpoints "
                "are complete: free disk space and run the same command again.",
            ) from None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trainable(self.model, Path(resume_from_checkpoint))

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Write no model card: manifest and training record describe the model."""


class LogCallback(TrainerCallback):
    """A callback that passes on each logged line, with the mean number of weights a document and the time a step."""

    def __init__(self, objective: SpladeObjective, listener: LogListener) -> None:
        self._objective, self._listener = objective, listener
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
        self._listener(line)


class SpladeObjective(CachedSpladeLoss):
    """SpladeLoss; its gradient-cached form (arXiv 2101.06983) when `mini_batch_size` is below the batch.

    Both have the same gradients, because the negatives are those of the whole batch.
    """

    def __init__(self, model: SparseEncoder, recipe: DecoderRecipe, idf: Tensor) -> None:
        regulariser = make_regulariser(
            recipe.regulariser, idf=idf, threshold=recipe.l0_threshold, columns=1 + recipe.negatives
        )
        super().__init__(
            model,
            SparseMultipleNegativesRankingLoss(model, scale=recipe.score_scale),
            document_regularizer_weight=recipe.regulariser_weight,
            document_regularizer=CountingRegulariser(regulariser),
            # sentence-transformers warns without a query regulariser, and the table is not a model output.
            query_regularizer_weight=0.0,
            query_regularizer=NoRegulariser(),
            mini_batch_size=recipe.mini_batch or recipe.batch,
        )

    @property
    def active(self) -> float:
        """Return the mean number of weights of the last batch's documents."""
        return float(self.document_regularizer.active)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> dict[str, Tensor]:
        features = list(sentence_features)
        whole = self.mini_batch_size >= features[0]["input_ids"].shape[0]
        # Pass copies, because a forward pass may write into its input, and a batch may be computed twice.
        features = [dict(column) for column in features]
        kind = SpladeLoss if whole else CachedSpladeLoss
        losses: dict[str, Tensor] = kind.forward(self, features, labels)
        return losses


class CountingRegulariser(Regulariser):
    """A regulariser that records the mean number of weights of its last batch's documents."""

    def __init__(self, regulariser: Regulariser) -> None:
        super().__init__()
        self.regulariser = regulariser
        self.active = torch.tensor(float("nan"))

    def penalty(self, weights: Tensor) -> Tensor:
        self.active = (weights.detach() > 0).sum(dim=1).float().mean()
        return self.regulariser.penalty(weights)


def save_trainable(model: nn.Module, directory: Path) -> None:
    """Write `TRAINABLE_FILE`. Raises InvalidInput (`not_finite_weights`) before writing NaN or infinity."""
    state = trainable_state(model)
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise InvalidInput("not_finite_weights", f"The parameter {name} has NaN or infinity and is not saved.")
    directory.mkdir(parents=True, exist_ok=True)
    save_file(state, directory / TRAINABLE_FILE)
    (directory / TRAINABLE_FILE).chmod(0o644)  # safetensors writes 0600


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained parameters by name, as detached tensors on the CPU."""
    return {
        name: parameter.detach().cpu().clone().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def load_trainable(model: nn.Module, directory: Path) -> None:
    """Load the trained parameters of a directory into a model.

    Raises ConfigurationError (`bad_training_state`) when the file is missing, damaged or of another model.
    """
    path = directory / TRAINABLE_FILE
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigurationError("bad_training_state", f"{path} cannot be read: {error}") from None
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes != {name: tuple(parameter.shape) for name, parameter in trained.items()}:
        raise ConfigurationError(
            "bad_training_state",
            f"{path} belongs to another model or recipe: its parameters have other names or shapes.",
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(state[name])


def last_checkpoint(directory: Path) -> Path | None:
    """Return the newest complete checkpoint. An interrupted run may leave an incomplete one."""
    checkpoints = [path for path in directory.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    for path in sorted(checkpoints, key=lambda path: -int(path.name.removeprefix("checkpoint-"))):
        try:
            # The trainer writes this file last.
            json.loads((path / TRAINER_STATE_FILE).read_bytes())
            load_file(path / TRAINABLE_FILE)
        except (OSError, ValueError, SafetensorError):
            continue
        return path
    return None
