"""Steps of long runs: sentence-transformers' trainer that stops at NaN and continues when memory runs out.

`GuardedTrainer`, `TrainingCallback` and `ChunkedSpladeLoss` (gradient caching, arXiv 2101.06983) run the steps.
`DensityControl` adjusts the regulariser's weight until documents have a given number of weights.
`is_out_of_memory`, `free_memory` and `cpu_dtype` hide differences between devices.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from sentence_transformers.sparse_encoder import SparseEncoderTrainer
from sentence_transformers.sparse_encoder.callbacks import SpladeRegularizerWeightSchedulerCallback
from sentence_transformers.sparse_encoder.losses import CachedSpladeLoss, SpladeLoss
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from models.training.modules import QueryTableEmbedding, TokenWeightPooling
from models.training.run_directory import copy_checkpoint, describe_kept_checkpoint, mark_complete
from services.errors import ConfigurationError

# Messages of the CPU allocator on Linux and elsewhere, the C++ library, oneDNN (seen in a training under `ulimit -v`),
# and CUDA outside of torch's pool (a context, the workspace of a product).
_OUT_OF_MEMORY_MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "could not create a primitive",
    "could not create a memory object",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
log = logging.getLogger("models.training")


class GuardedTrainer(SparseEncoderTrainer):
    """Trainer that raises ConfigurationError (`training_diverged`, `out_of_memory`) and keeps the last checkpoint."""

    def training_step(self, model: torch.nn.Module, *arguments: Any, **named: Any) -> torch.Tensor:
        distributed = isinstance(model, DistributedDataParallel)
        while True:
            try:
                # A step has passes with different parameters, and several backward passes when it runs in parts.
                # DistributedDataParallel rejects the second pass, so gradients are averaged here after the last.
                with model.no_sync() if distributed else nullcontext():
                    loss: torch.Tensor = super().training_step(model, *arguments, **named)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                break
            # this runs outside the handler, where the error's frames no longer hold the tensors
            self._make_room()
        if not torch.isfinite(loss):
            raise training_diverged(
                "loss", self.state.global_step + 1, describe_kept_checkpoint(Path(self.args.output_dir))
            )
        if distributed:
            average_gradients(model)
        return loss

    def _save(self, *arguments: Any, **named: Any) -> None:
        # transformers 5 calls this on every device, and sentence-transformers would write on each
        if self.args.should_save:
            super()._save(*arguments, **named)

    def _make_room(self) -> None:
        """Halve the parts and discard gradients: those of an unfinished backward pass would count twice after the
        restart.
        """
        size = self.loss.halve(self.args.per_device_train_batch_size) if self.args.world_size == 1 else 0
        if not size:
            raise ConfigurationError(
                "out_of_memory",
                "Memory does not hold one text of a step: lower encoder.passage_pieces, or take a smaller start."
                if self.args.world_size == 1
                else "A device ran out of memory: set mini_batch, since devices cannot change it one by one.",
            )
        self.model.zero_grad(set_to_none=True)
        free_memory()
        log.warning("memory ran out: continuing with %d texts at once", size)


def parameter_groups(
    model: torch.nn.Module, learning_rate: float, table_learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Group the trainable parameters for an optimiser: matrices, biases and norms without decay, the query table.

    The table has its own learning rate (1e-3 in arXiv 2505.01452) and no decay: decay would lower the weights of pieces
    that no query of the batch contains. A new layer of `mlp` weighting has the same. Empty groups are left out.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, QueryTableEmbedding)}
    layers = [module for module in model.modules() if isinstance(module, TokenWeightPooling)]
    tables |= {id(parameter) for layer in layers for parameter in layer.parameters()}
    matrices: list[torch.Tensor] = []
    vectors: list[torch.Tensor] = []
    table: list[torch.Tensor] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        group_of = table if id(parameter) in tables else matrices if parameter.ndim > 1 else vectors
        group_of.append(parameter)
    groups = [
        {"params": matrices, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": vectors, "lr": learning_rate, "weight_decay": 0.0},
        {"params": table, "lr": table_learning_rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def training_diverged(quantity: str, step: int, checkpoint: str) -> ConfigurationError:
    """Return the error of a diverged run: the settings to change, and the remaining checkpoint."""
    return ConfigurationError(
        "training_diverged",
        f"The {quantity} of step {step} is not finite, so the run was stopped. {checkpoint} Lower learning_rate or "
        "raise warmup; replace precision float16 by bfloat16 or float32; look for broken teacher scores. A changed "
        "recipe is another run: give it another --out.",
    )


def average_gradients(model: torch.nn.Module) -> None:
    """Average every gradient over the devices of a run, in place; a missing gradient counts as zero."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= torch.distributed.get_world_size()


class TrainingCallback(TrainerCallback):
    """Callback that rejects non-finite gradients, marks and copies finished checkpoints, and reports progress."""

    def __init__(self, report: Callable[[int, int, dict[str, float]], None], copy_to: Path | None = None) -> None:
        self._report, self._copy_to = report, copy_to

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.fp16:
            return  # the gradient scaler skips steps that are not finite, and lowers its scale
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            raise training_diverged("gradient", state.global_step + 1, describe_kept_checkpoint(Path(args.output_dir)))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._report(state.global_step, state.max_steps, kwargs["logs"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            mark_complete(directory, state.global_step)
            if self._copy_to is not None:
                copy_checkpoint(directory, self._copy_to / directory.parent.name)


class DensityControl(SpladeRegularizerWeightSchedulerCallback):
    """Schedule of lambda that ends at a density: after the ramp, lambda follows the mean weights of a document.

    A proportional-integral controller of the logarithms: with e = log(weights / target), lambda is multiplied by
    exp(PROPORTIONAL e + INTEGRAL sum(e)). So variants of a recipe compare at equal density without a search for the
    lambda of each. The sum is kept beside each checkpoint, and a resumed run continues with it.
    """

    PROPORTIONAL: Final = 1.0
    # A density twice the target doubles lambda in 50 steps. The density follows lambda within some 20 steps.
    INTEGRAL: Final = 0.02
    # The density is a moving average, because single batches differ by a fifth.
    SMOOTHING: Final = 0.1
    FILE: Final = "density.json"

    def __init__(self, loss: SpladeLoss, ramp: float, target_weights: float) -> None:
        super().__init__(loss, "quadratic", ramp)
        self._base, self._target = float(loss.document_regularizer_weight), target_weights
        loss.document_regularizer.counts_weights = True
        self._sum = 0.0
        self._density: float | None = None

    def resume(self, checkpoint: Path) -> None:
        """Continue with the state beside a checkpoint. A checkpoint without one begins at the recipe's lambda."""
        path = checkpoint / self.FILE
        if path.is_file():
            state = json.loads(path.read_bytes())
            self._sum, self._density = float(state["sum"]), state["density"]

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._density is not None and state.global_step >= self.warmup_steps:
            error = math.log(max(self._density, 1e-3) / self._target)
            self._sum += error
            self.max_document_regularizer_weight = self._base * math.exp(
                self.PROPORTIONAL * error + self.INTEGRAL * self._sum
            )
        super().on_step_begin(args, state, control, **kwargs)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        found = self.loss.document_regularizer.weights_a_document
        if found is not None:
            before = found if self._density is None else self._density
            self._density = before + self.SMOOTHING * (found - before)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            content = {"sum": self._sum, "density": self._density, "lambda": self.max_document_regularizer_weight}
            path = Path(args.output_dir) / f"checkpoint-{state.global_step}" / self.FILE
            path.write_text(json.dumps(content) + "\n", encoding="utf-8")


class ChunkedSpladeLoss(CachedSpladeLoss):
    """SpladeLoss, whole or in parts of `mini_batch_size` texts (gradient caching, arXiv 2101.06983).

    Parts compute every document twice, so the loss starts whole unless a size is set, and changes to parts when memory
    runs out. Both give the same gradients.
    """

    def __init__(self, model: Any, loss: torch.nn.Module, *, mini_batch: int | None, **options: Any) -> None:
        with _silence_root_logger():
            super().__init__(model, loss, mini_batch_size=mini_batch or 1, **options)
        self.mini_batch_size: int
        self.in_parts = mini_batch is not None

    def forward(self, sentence_features: Any, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        run = CachedSpladeLoss.forward if self.in_parts else SpladeLoss.forward
        losses: dict[str, torch.Tensor] = run(self, list(sentence_features), labels)
        return losses

    def halve(self, batch: int) -> int:
        """Halve the size of the parts. Return the new size, or 0 when a part already is one text."""
        size = self.mini_batch_size // 2 if self.in_parts else (batch + 1) // 2
        if size:
            self.in_parts, self.mini_batch_size = True, size
        return size


@contextmanager
def _silence_root_logger() -> Iterator[None]:
    """Drop SpladeLoss's warning on the root logger that queries are not regularised: here they are a table."""
    root = logging.getLogger()
    root.addFilter(_reject_record)
    try:
        yield
    finally:
        root.removeFilter(_reject_record)


def _reject_record(record: logging.LogRecord) -> bool:
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out.

    torch has a class for its pool on a GPU and raises a bare RuntimeError elsewhere; NumPy raises Python's MemoryError.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in _OUT_OF_MEMORY_MESSAGES)


def free_memory() -> None:
    """Release the memory of a failed step: tensors in cycles of frames and errors, and the memory of pools.

    The C library keeps freed tensors for later small ones: a training under `ulimit -v` had 4 GB there and ended
    because a few kilobytes of code did not fit.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)


def cpu_dtype() -> torch.dtype:
    """Return bfloat16 where the processor multiplies it in hardware, otherwise float32.

    SmolLM2-135M on one core of an EPYC with AVX512-BF16, windows of 128 pieces: 4.5 documents a second of processor
    time, 1.3 in float32.
    """
    capabilities = torch.cpu.get_capabilities()
    return torch.bfloat16 if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else torch.float32
