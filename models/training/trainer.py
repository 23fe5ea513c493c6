"""sentence-transformers' trainer with what a long run needs: it stops at NaN, and goes on when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.sparse_encoder import SparseEncoderTrainer
from sentence_transformers.sparse_encoder.losses import CachedSpladeLoss, SpladeLoss
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from models.training.device import free_memory, out_of_memory
from models.training.kept_checkpoints import copy_checkpoint, last_checkpoint, mark_whole
from services.errors import ConfigurationError

log = logging.getLogger("models.training")


@contextmanager
def _root_silent() -> Iterator[None]:
    """SpladeLoss warns through the root logger that queries are not regularised: they are a table here."""
    root = logging.getLogger()
    root.addFilter(_nothing)
    try:
        yield
    finally:
        root.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


class SpladeLossInParts(CachedSpladeLoss):
    """SpladeLoss, and the same in parts of `mini_batch_size` texts (gradient caching, arXiv 2101.06983).

    In parts it computes every document twice, so it starts whole unless a size is given, and goes to parts when memory
    runs out. Both give the same gradients.
    """

    def __init__(self, model: Any, loss: torch.nn.Module, *, mini_batch: int | None, **given: Any) -> None:
        with _root_silent():
            super().__init__(model, loss, mini_batch_size=mini_batch or 1, **given)
        self.mini_batch_size: int
        self.in_parts = mini_batch is not None

    def forward(self, sentence_features: Any, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        run = CachedSpladeLoss.forward if self.in_parts else SpladeLoss.forward
        found: dict[str, torch.Tensor] = run(self, list(sentence_features), labels)
        return found

    def halve(self, batch: int) -> int:
        """Takes parts of half the size from now on. Returns it; 0 when a part is one text already."""
        size = self.mini_batch_size // 2 if self.in_parts else (batch + 1) // 2
        if size:
            self.in_parts, self.mini_batch_size = True, size
        return size


def not_finite(what: str, step: int, kept: str) -> ConfigurationError:
    """The error of a run that diverged: what to change, and what is left of it."""
    return ConfigurationError(
        "training_diverged",
        f"The {what} of step {step} is not finite, so the run was stopped. {kept} Lower learning_rate or raise warmup; "
        "with precision float16 take bfloat16 or float32; look for broken teacher scores. What is changed is "
        "another run: give it another --out.",
    )


def average_gradients(model: torch.nn.Module) -> None:
    """The mean of every gradient over the devices of a run, in place; a device without one counts as zero."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= torch.distributed.get_world_size()


class CarefulTrainer(SparseEncoderTrainer):
    """Raises ConfigurationError (`training_diverged`, `out_of_memory`) and leaves the last good checkpoint in place."""

    def training_step(self, model: torch.nn.Module, *arguments: Any, **named: Any) -> torch.Tensor:
        several = isinstance(model, DistributedDataParallel)
        while True:
            try:
                # A step is made of passes that use different parameters, in parts even of several backward passes:
                # DistributedDataParallel takes the second for an error, so gradients are averaged here when all are in.
                with model.no_sync() if several else nullcontext():
                    loss: torch.Tensor = super().training_step(model, *arguments, **named)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            else:
                break
            # outside of the handler, where the error's frames no longer hold the tensors
            self._make_room()
        if not torch.isfinite(loss):
            raise not_finite("loss", self.state.global_step + 1, kept(Path(self.args.output_dir)))
        if several:
            average_gradients(model)
        return loss

    def _save(self, *arguments: Any, **named: Any) -> None:
        # transformers 5 asks every device to save and sentence-transformers takes each for the first
        if self.args.should_save:
            super()._save(*arguments, **named)

    def _make_room(self) -> None:
        """Gradients of a half done backward pass would count twice, so the step begins anew."""
        size = self.loss.halve(self.args.per_device_train_batch_size) if self.args.world_size == 1 else 0
        if not size:
            raise ConfigurationError(
                "out_of_memory",
                "Memory does not hold one text of a step: shorten encoder.passage_pieces, or take a smaller start."
                if self.args.world_size == 1
                else "A device ran out of memory: give mini_batch, since devices cannot change theirs one by one.",
            )
        self.model.zero_grad(set_to_none=True)
        free_memory()
        log.warning("memory ran out: going on with %d texts at once", size)


class Watch(TrainerCallback):
    """Refuses gradients that are not finite, marks finished checkpoints and copies them out, reports progress."""

    def __init__(self, report: Callable[[int, int, dict[str, float]], None], copy_to: Path | None = None) -> None:
        self._report, self._copy_to = report, copy_to

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        if args.fp16:
            return  # the gradient scaler skips such steps, and lowers its scale
        gradients = [p.grad for p in given["model"].parameters() if p.grad is not None]
        if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            raise not_finite("gradient", state.global_step + 1, kept(Path(args.output_dir)))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        self._report(state.global_step, state.max_steps, given["logs"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        if state.is_world_process_zero:
            directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            mark_whole(directory, state.global_step)
            if self._copy_to is not None:
                copy_checkpoint(directory, self._copy_to / directory.parent.name)


def kept(directory: Path) -> str:
    """What a stopped run leaves, in words."""
    checkpoint = last_checkpoint(directory)
    return f"The last good checkpoint is {checkpoint}." if checkpoint else "There was no checkpoint yet."
