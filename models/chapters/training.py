"""Training of a chapter generator: from a base model and annotated episodes to a directory for workers.

`train_chapters` learns the answers of `models.chapters.training_data` (PODTILE, arXiv 2410.16148), with adapters or all
weights. `AnswerTrainer` is transformers' trainer with a loss on answers only; it stops when the loss is not finite
(docs/decisions/0197).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback, Trainer, TrainingArguments

from models.chapters.engine import AnnotatedEpisode, read_episodes
from models.chapters.podtile import hash_weights
from models.chapters.podtile_checkpoint import (
    ADAPTER_FILES,
    TOKENIZER_FILE,
    ChapterManifest,
    GeneratorCheckpoint,
    add_adapters,
    load_checkpoint,
    resolve_generator_source,
    save_adapters,
    write_chapter_manifest,
)
from models.chapters.training_data import IGNORED_LABEL, ChapterRecipe, ExampleCollator, TrainingExample, make_examples
from models.decoder.trainer import load_trainable, save_trainable
from models.progress import ProgressReporter
from models.training.run_directory import (
    claim_run_directory,
    describe_kept_checkpoint,
    drop_unfinished,
    last_checkpoint,
)
from models.training.storage import ReadReport
from models.training.trainer import TrainingCallback, cpu_dtype, is_out_of_memory, training_diverged
from services.directories import replace_directory
from services.encoders.manifest import MANIFEST_FILE
from services.errors import ConfigurationError, InvalidInput

LOG_FILE = "log.jsonl"


@dataclass(frozen=True, slots=True)
class TrainedChapterModel:
    """Result of `train_chapters`. `losses` are the logged losses of this call, in nats a piece of an answer."""

    directory: Path
    manifest: ChapterManifest
    losses: list[float]
    seconds: float


def train_chapters(
    files: Sequence[Path],
    base: str,
    out: Path,
    recipe: ChapterRecipe,
    *,
    licence: str = "unstated",
    merge: bool = False,
    boundaries: Literal["own", "tiling"] = "own",
    show: ProgressReporter,
) -> TrainedChapterModel:
    """Train on the episodes of `files` that are not held out, and write the directory `out`.

    The directory holds adapters and the name of their base. With `merge`, or when all weights are trained, it holds
    whole weights. `boundaries`: see `ChapterManifest`. Checkpoints are in OUT.training; the same call after a kill
    resumes from the last complete one.

    Raises InvalidInput (`no_episodes`, `too_few_examples`) and ConfigurationError: those of `resolve_generator_source`,
    `load_checkpoint` and `AnswerTrainer`, and `other_training` when the checkpoints belong to another run.
    """
    began = time.monotonic()
    episodes = _read_training_episodes(files, show)
    source = resolve_generator_source(base)
    work = out.with_name(f"{out.name}.training")
    claim_run_directory(
        work,
        {"recipe": recipe.model_dump(), "base": hash_weights(source), "episodes": _episodes_fingerprint(episodes)},
        "recipe, base or episodes",
    )
    torch.manual_seed(recipe.seed)
    checkpoint = load_checkpoint(source, _model_dtype(recipe))
    examples = _make_training_examples(checkpoint, episodes, recipe)
    show.report(f"{len(episodes)} episodes, {len(examples):,} examples, {recipe.steps} steps of {recipe.batch}.")
    if len(examples) < recipe.batch:
        raise InvalidInput("too_few_examples", f"{len(examples)} examples do not fill a batch of {recipe.batch}.")
    model = (
        add_adapters(checkpoint.model, recipe.rank, recipe.alpha, recipe.dropout) if recipe.rank else checkpoint.model
    )
    if recipe.checkpoint_layers:
        checkpoint.model.activation_checkpointing_enable({"use_reentrant": False})
    losses: list[float] = []

    def report(step: int, steps: int, logs: dict[str, float]) -> None:
        if "loss" not in logs:
            return
        losses.append(logs["loss"])
        with (work / LOG_FILE).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, "loss": logs["loss"], "seconds": time.monotonic() - began}) + "\n")
        show.trained(step, steps, logs)

    drop_unfinished(work)
    trainer = make_trainer(
        model,
        examples,
        ExampleCollator(checkpoint, min(recipe.part_pieces, checkpoint.positions)),
        recipe,
        work,
        TrainingCallback(report),
    )
    resumed = last_checkpoint(work)
    if resumed is not None:
        show.report(f"Resuming from {resumed}.")
    if resumed is None or not resumed.name.endswith(f"-{recipe.steps}"):
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    else:  # resumed from its last step, transformers would make one more
        load_trainable(model, resumed)
    record = {
        "method": "PODTILE (arXiv 2410.16148): parts with the global context, boundaries and titles written together",
        "episodes": len(episodes),
        "files": [path.name for path in files],
        "examples": len(examples),
        "seen": recipe.steps * recipe.batch,
        "recipe": recipe.model_dump(),
        "last_loss": _last_loss(work / LOG_FILE),
    }
    merged = merge or not recipe.rank
    description = {"base": base, "licence": licence, "boundaries": boundaries, "training": record}
    manifest = _write_model(checkpoint, model, out, recipe, merged, description)
    return TrainedChapterModel(out, manifest, losses, time.monotonic() - began)


def _read_training_episodes(files: Sequence[Path], show: ProgressReporter) -> list[AnnotatedEpisode]:
    episodes: list[AnnotatedEpisode] = []
    for path in files:
        report = ReadReport(path.name)
        file_episodes = list(read_episodes(path, report))
        kept = [episode for episode in file_episodes if not episode.held_out]
        refused = f", {sum(report.refused.values())} lines refused: {report.examples[0]}" if report.refused else ""
        show.report(
            f"{path.name}: {len(file_episodes)} episodes, {len(file_episodes) - len(kept)} of them held out{refused}."
        )
        episodes += kept
    return episodes


def _make_training_examples(
    checkpoint: GeneratorCheckpoint, episodes: list[AnnotatedEpisode], recipe: ChapterRecipe
) -> Any:
    def count(texts: Sequence[str]) -> list[int]:
        rows = checkpoint.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(row) for row in rows]

    return make_examples(episodes, recipe, count)


def _episodes_fingerprint(episodes: list[AnnotatedEpisode]) -> str:
    digest = hashlib.sha256()
    for annotated in episodes:
        digest.update(repr((annotated.id, annotated.episode.text, annotated.chapters)).encode())
    return digest.hexdigest()


def _model_dtype(recipe: ChapterRecipe) -> str:
    if not recipe.rank:
        return "float32"
    if recipe.precision != "auto":
        return recipe.precision
    return "bfloat16" if torch.cuda.is_available() else str(cpu_dtype()).removeprefix("torch.")


def _last_loss(log: Path) -> float:
    """Return the last logged loss, of this call or an earlier one: the command may run again after its last step."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return float(json.loads(lines[-1])["loss"])


def _write_model(
    checkpoint: GeneratorCheckpoint, model: Any, out: Path, recipe: ChapterRecipe, merged: bool, facts: dict[str, Any]
) -> ChapterManifest:
    """Write the directory under another name and rename it, so it is always complete."""
    description: dict[str, Any] = {
        "name": out.resolve().name,
        "part_pieces": recipe.part_pieces,
        "answer_pieces": recipe.answer_pieces,
        "title_pieces": recipe.title_pieces,
        "description_pieces": recipe.description_pieces,
        "earlier_titles_pieces": recipe.earlier_titles_pieces,
        "ahead": recipe.ahead,
        "boundaries": facts["boundaries"],
        "licence": facts["licence"],
        "training": {**facts["training"], "base": facts["base"]},
    }
    if out.exists() and not (out / MANIFEST_FILE).is_file():
        out.rmdir()  # fails for a directory of other files, which is not replaced
    with replace_directory(out) as fresh:
        if merged:
            (model.merge_and_unload() if recipe.rank else model).save_pretrained(str(fresh))
            shutil.copyfile(checkpoint.directory / TOKENIZER_FILE, fresh / TOKENIZER_FILE)
            names = [path.name for path in fresh.iterdir()]
        else:
            save_adapters(model, fresh)
            description["base"] = {"source": facts["base"], "sha256": hash_weights(checkpoint.directory)}
            names = list(ADAPTER_FILES)
        for name in names:
            (fresh / name).chmod(0o644)  # safetensors makes files private, and a worker may run as another user
        return write_chapter_manifest(fresh, description, names)


def make_trainer(
    model: Any,
    data: list[TrainingExample],
    feeding: ExampleCollator,
    recipe: ChapterRecipe,
    work: Path,
    watch: TrainingCallback,
) -> AnswerTrainer:
    """Make the trainer of a recipe; `work` receives the checkpoints."""
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


class AnswerTrainer(Trainer):
    """Trainer of the answers of examples. Its checkpoints hold the trained weights and the optimiser.

    `train` raises ConfigurationError: `training_diverged`, `out_of_memory`; earlier checkpoints stay.
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean over all pieces of the batch's answers, also when the batch takes several forward passes."""
        features = dict(inputs)
        labels: Tensor = features.pop("labels")
        if "decoder_input_ids" in features:
            logits = model(**features).logits
        else:
            # The vocabulary head is half of a small model's work, and one piece in thirty belongs to an answer.
            answered = int((labels != IGNORED_LABEL).any(0).sum())
            if _keeps_logits(model):
                features["logits_to_keep"] = answered + 1
            logits = model(**features, use_cache=False).logits[:, -answered - 1 : -1]
            labels = labels[:, -answered:]
        total = cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
        )
        count = (labels != IGNORED_LABEL).sum() if num_items_in_batch is None else num_items_in_batch
        loss = total / count
        return (loss, {}) if return_outputs else loss

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:
        try:
            loss: Tensor = super().training_step(*arguments, **named)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise ConfigurationError(
                "out_of_memory",
                "Memory does not hold a step: lower mini_batch or part_pieces, or set checkpoint_layers.",
            ) from None
        if not torch.isfinite(loss):
            raise training_diverged(
                "loss", self.state.global_step + 1, describe_kept_checkpoint(Path(self.args.output_dir))
            )
        return loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        save_trainable(self.model, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trainable(self.model, Path(resume_from_checkpoint))


def _keeps_logits(model: Any) -> bool:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters
