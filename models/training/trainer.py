"""sentence-transformers' trainer with what a long run needs: it stops at NaN, and goes on when memory runs out.

Writes an encoder as a checkpoint: the directory that is exported, measured and trained on.

What a device multiplies fast, and how torch says that its memory is used up.

The checkpoints that a run goes on from: whole or not there, compared before they are used, copied out.

The directory of a training run's checkpoints, which belong to one recipe and one set of texts.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder import SparseEncoderTrainer
from sentence_transformers.sparse_encoder.losses import CachedSpladeLoss, SpladeLoss
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from models.export.package import copy_tokenizer, excluded_piece_ids, read_vocabulary
from models.training.architecture import InferenceFreeEncoder, require_finite_parameters
from models.training.idf import write_weights
from services.encoders.manifest import describe_file
from services.errors import ConfigurationError


def save_checkpoint(model: InferenceFreeEncoder, directory: Path) -> None:
    """Writes what `sparsewell encoders export DIRECTORY OUT` and `build_encoder` read.

    These are config.json and model.safetensors (float32, head tied; neither with binary document weights, which have
    no model), tokenizer.json, query_weights.json, recipe.json, and idf.json when there is one. The directory is
    complete or not there: it is written beside its place and renamed.

    Raises InvalidInput (`not_finite_weights`) when a parameter is NaN or infinite; what was there stays.
    """
    if model.recipe is None or model.tokenizer_json is None:
        raise ConfigurationError("bad_recipe", "Only encoders made by build_encoder can be saved as a checkpoint.")
    require_finite_parameters(model)
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = directory.with_name(f"{directory.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    _write_checkpoint(model, model.tokenizer_json, fresh)
    model.recipe.write(fresh)
    old = directory.with_name(f"{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def _write_checkpoint(model: InferenceFreeEncoder, tokenizer_json: bytes, directory: Path) -> None:
    router = model[0]
    transformer = router.sub_modules["document"][0]
    if isinstance(transformer, Transformer):
        transformer.model.save_pretrained(directory)
        transformer.processor.save_pretrained(directory)
    # the start's own file in place of the one that transformers wrote, which truncates and pads
    given = directory / "given.json"
    given.write_bytes(tokenizer_json)
    copy_tokenizer(given, directory / "tokenizer.json")
    given.unlink()
    pieces = read_vocabulary(directory / "tokenizer.json")
    excluded = excluded_piece_ids(pieces)
    queries = router.sub_modules["query"][0]
    queries.project()
    table = queries.weight.detach().float().cpu().numpy()
    write_weights(directory / "query_weights.json", table, pieces, excluded)
    if model.idf is not None:
        write_weights(directory / "idf.json", model.idf, pieces, excluded)


# The allocator for processors on Linux and elsewhere, the C++ library, oneDNN (a training under `ulimit -v` ended so),
# and CUDA where it is not torch's own pool that has no more (a context, the workspace of a product).
_OUT_OF_MEMORY_MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "could not create a primitive",
    "could not create a memory object",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """For its pool on a GPU torch has a class, everything else is a bare RuntimeError; NumPy has Python's own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in _OUT_OF_MEMORY_MESSAGES)


def free_memory() -> None:
    """Gives back what a step that failed still holds: tensors in cycles of frames and errors, and what pools keep.

    The C library keeps freed tensors for its next small ones: a training under `ulimit -v` had 4 GB there and ended for
    want of a few kilobytes of code.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def cpu_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware, otherwise float32.

    SmolLM2-135M, one core of an EPYC with AVX512-BF16, windows of 128 pieces: 4.5 documents a second of processor time
    for 1.3 in float32.
    """
    found = torch.cpu.get_capabilities()
    return torch.bfloat16 if found.get("avx512_bf16") or found.get("amx_bf16") else torch.float32


log = logging.getLogger("models.training")
COMPLETE_FILE = "complete.json"


def mark_complete(directory: Path, step: int) -> None:
    """Says that a checkpoint was written to its end, and what its files hold.

    States of random numbers are left out: other devices may still write theirs.
    """
    files = {
        path.relative_to(directory).as_posix(): describe_file(path).sha256
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.startswith("rng_state") and path.name != COMPLETE_FILE
    }
    (directory / COMPLETE_FILE).write_text(
        json.dumps({"step": step, "files": files}, indent=1) + "\n", encoding="utf-8"
    )


def last_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint that is whole; a run that is killed while it saves leaves half of one, a disk worse."""
    steps = {int(name): path for path in directory.glob("checkpoint-*") if (name := path.name[11:]).isdigit()}
    return next((steps[step] for step in sorted(steps, reverse=True) if _is_complete(steps[step])), None)


def drop_unfinished(directory: Path) -> None:
    """Removes checkpoints without their mark, and those whose files are not what it says."""
    for path in directory.glob("checkpoint-*"):
        if path.is_dir() and not _is_complete(path):
            shutil.rmtree(path)


def copy_checkpoint(directory: Path, to: Path) -> None:
    """Puts a copy into the directory `to`, in place of an older one. A copy that fails costs the copy, not the run."""
    made, part = to / directory.name, to / f".{directory.name}.part"
    try:
        to.mkdir(parents=True, exist_ok=True)
        for stale in (made, part):
            shutil.rmtree(stale, ignore_errors=True)
        shutil.copytree(directory, part)
        part.rename(made)
        for older in to.glob("checkpoint-*"):
            if older != made:
                shutil.rmtree(older, ignore_errors=True)
    except OSError as error:
        log.warning("%s was not copied to %s (%s); the run goes on", directory.name, to, error.strerror or error)


def _is_complete(path: Path) -> bool:
    try:
        files = json.loads((path / COMPLETE_FILE).read_bytes()).get("files", {})
    except (OSError, ValueError):
        return False
    damaged = [name for name, sha256 in files.items() if not _has_sha256(path / name, sha256)]
    if damaged:
        log.warning("%s is damaged (%s) and is passed over", path, ", ".join(damaged))
    return not damaged


def _has_sha256(path: Path, sha256: str) -> bool:
    return path.is_file() and describe_file(path).sha256 == sha256


RUN_FILE = "run.json"


def claim_run_directory(work: Path, run: dict[str, Any], what: str) -> None:
    """Makes the directory of the checkpoints, or sees that it is this run's.

    `run` is what a run is known by, `what` the same in words. One that ended before its first checkpoint leaves nothing
    to lose, and whoever was told to change a setting shall not have to remove it. Raises ConfigurationError
    (`other_training`).
    """
    path, content = work / RUN_FILE, json.dumps(run, indent=2, sort_keys=True) + "\n"
    work.mkdir(parents=True, exist_ok=True)
    if not path.exists() or not any(work.glob("checkpoint-*")):
        path.write_text(content, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != content:
        raise ConfigurationError(
            "other_training", f"{work} holds checkpoints of another {what}: remove it, or choose another --out."
        )


@contextmanager
def _silence_root_logger() -> Iterator[None]:
    """SpladeLoss warns through the root logger that queries are not regularised: they are a table here."""
    root = logging.getLogger()
    root.addFilter(_reject_record)
    try:
        yield
    finally:
        root.removeFilter(_reject_record)


def _reject_record(record: logging.LogRecord) -> bool:
    return False


class ChunkedSpladeLoss(CachedSpladeLoss):
    """SpladeLoss, and the same in parts of `mini_batch_size` texts (gradient caching, arXiv 2101.06983).

    In parts it computes every document twice, so it starts whole unless a size is given, and goes to parts when memory
    runs out. Both give the same gradients.
    """

    def __init__(self, model: Any, loss: torch.nn.Module, *, mini_batch: int | None, **given: Any) -> None:
        with _silence_root_logger():
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


def training_diverged(what: str, step: int, kept: str) -> ConfigurationError:
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


class GuardedTrainer(SparseEncoderTrainer):
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
                if not is_out_of_memory(error):
                    raise
            else:
                break
            # outside of the handler, where the error's frames no longer hold the tensors
            self._make_room()
        if not torch.isfinite(loss):
            raise training_diverged(
                "loss", self.state.global_step + 1, describe_kept_checkpoint(Path(self.args.output_dir))
            )
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


class TrainingCallback(TrainerCallback):
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
            raise training_diverged("gradient", state.global_step + 1, describe_kept_checkpoint(Path(args.output_dir)))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        self._report(state.global_step, state.max_steps, given["logs"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        if state.is_world_process_zero:
            directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            mark_complete(directory, state.global_step)
            if self._copy_to is not None:
                copy_checkpoint(directory, self._copy_to / directory.parent.name)


def describe_kept_checkpoint(directory: Path) -> str:
    """What a stopped run leaves, in words."""
    checkpoint = last_checkpoint(directory)
    return f"The last good checkpoint is {checkpoint}." if checkpoint else "There was no checkpoint yet."
