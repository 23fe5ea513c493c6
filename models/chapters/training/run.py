"""A generator of chapters from a base and episodes, to a directory that workers open."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from models.chapters.episodes import Chaptered, read_episodes
from models.chapters.podtile.adapters import add_adapters, save_adapters
from models.chapters.podtile.checkpoint import Checkpoint, brought, load_checkpoint
from models.chapters.podtile.directory import ADAPTER, TOKENIZER, ChapterManifest, write_chapter_manifest
from models.chapters.podtile.generator import weights_sha256
from models.chapters.training.examples import examples
from models.chapters.training.feeding import Feeding
from models.chapters.training.recipe import ChapterRecipe
from models.chapters.training.trainer import make_trainer
from models.decoder.trainable import load_trainable
from models.training.device import cpu_dtype
from models.training.json_lines import ReadReport
from models.training.kept_checkpoints import drop_unfinished, last_checkpoint
from models.training.run_directory import claim
from models.training.show import Show
from models.training.trainer import Watch
from services.errors import InvalidInput
from services.manifest import MANIFEST

LOG = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Made:
    """What `train_chapters` wrote. `losses` are the logged ones of this call, in nats a piece of an answer."""

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
    show: Show,
) -> Made:
    """Trains on the episodes of `files` that are not held out, and writes the directory `out`: adapters that name their
    base, or whole weights with `merge` and where all weights are trained. `boundaries`: see `ChapterManifest`.

    Checkpoints go beside it (its name and `.training`); the same call after a kill goes on from the last whole one.
    Raises InvalidInput (`no_episodes`, `too_few_examples`) and ConfigurationError: those of `brought`,
    `load_checkpoint` and `AnswerTrainer`, and `other_training` where checkpoints of another run are.
    """
    began = time.monotonic()
    episodes = _learned(files, show)
    source = brought(base)
    work = out.with_name(f"{out.name}.training")
    claim(
        work,
        {"recipe": recipe.model_dump(), "base": weights_sha256(source), "episodes": _identity(episodes)},
        "recipe, base or episodes",
    )
    torch.manual_seed(recipe.seed)
    checkpoint = load_checkpoint(source, _dtype(recipe))
    data = _examples(checkpoint, episodes, recipe)
    show.say(f"{len(episodes)} episodes, {len(data):,} examples, {recipe.steps} steps of {recipe.batch}.")
    if len(data) < recipe.batch:
        raise InvalidInput("too_few_examples", f"{len(data)} examples do not fill a batch of {recipe.batch}.")
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
        with (work / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, "loss": logs["loss"], "seconds": time.monotonic() - began}) + "\n")
        show.trained(step, steps, logs)

    drop_unfinished(work)
    trainer = make_trainer(
        model, data, Feeding(checkpoint, min(recipe.part_pieces, checkpoint.positions)), recipe, work, Watch(report)
    )
    resumed = last_checkpoint(work)
    if resumed is not None:
        show.say(f"Going on from {resumed}.")
    if resumed is None or not resumed.name.endswith(f"-{recipe.steps}"):
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    else:  # (asked to go on from its last step, transformers makes one more)
        load_trainable(model, resumed)
    record = {
        "method": "PODTILE (arXiv 2410.16148): parts with the global context, boundaries and titles written together",
        "episodes": len(episodes),
        "files": [path.name for path in files],
        "examples": len(data),
        "seen": recipe.steps * recipe.batch,
        "recipe": recipe.model_dump(),
        "last_loss": _last_loss(work / LOG),
    }
    whole = merge or not recipe.rank
    told = {"base": base, "licence": licence, "boundaries": boundaries, "training": record}
    manifest = _write(checkpoint, model, out, recipe, whole, told)
    return Made(out, manifest, losses, time.monotonic() - began)


def _last_loss(log: Path) -> float:
    """Of this call or one before it: the command may be given again after its last step."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return float(json.loads(lines[-1])["loss"])


def _learned(files: Sequence[Path], show: Show) -> list[Chaptered]:
    found: list[Chaptered] = []
    for path in files:
        report = ReadReport(path.name)
        read = list(read_episodes(path, report))
        kept = [one for one in read if not one.held_out]
        refused = f", {sum(report.refused.values())} lines refused: {report.examples[0]}" if report.refused else ""
        show.say(f"{path.name}: {len(read)} episodes, {len(read) - len(kept)} of them held out{refused}.")
        found += kept
    return found


def _examples(checkpoint: Checkpoint, episodes: list[Chaptered], recipe: ChapterRecipe) -> Any:
    def count(texts: Sequence[str]) -> list[int]:
        rows = checkpoint.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(row) for row in rows]

    return examples(episodes, recipe, count)


def _write(
    checkpoint: Checkpoint, model: Any, out: Path, recipe: ChapterRecipe, whole: bool, told: dict[str, Any]
) -> ChapterManifest:
    """Beside its place, then renamed: a directory of that name is always whole."""
    fresh = out.with_name(f"{out.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    description: dict[str, Any] = {
        "name": out.resolve().name,
        "part_pieces": recipe.part_pieces,
        "answer_pieces": recipe.answer_pieces,
        "title_pieces": recipe.title_pieces,
        "ahead": recipe.ahead,
        "boundaries": told["boundaries"],
        "licence": told["licence"],
        "training": {**told["training"], "base": told["base"]},
    }
    if whole:
        (model.merge_and_unload() if recipe.rank else model).save_pretrained(str(fresh))
        shutil.copyfile(checkpoint.directory / TOKENIZER, fresh / TOKENIZER)
        names = [path.name for path in fresh.iterdir()]
    else:
        save_adapters(model, fresh)
        description["base"] = {"source": told["base"], "sha256": weights_sha256(checkpoint.directory)}
        names = list(ADAPTER)
    for name in names:
        (fresh / name).chmod(0o644)  # safetensors lets nobody else read, a worker may be another user
    manifest = write_chapter_manifest(fresh, description, names)
    if (out / MANIFEST).is_file():
        shutil.rmtree(out)
    fresh.rename(out)
    return manifest


def _dtype(recipe: ChapterRecipe) -> str:
    if not recipe.rank:
        return "float32"
    if recipe.precision != "auto":
        return recipe.precision
    return "bfloat16" if torch.cuda.is_available() else str(cpu_dtype()).removeprefix("torch.")


def _identity(episodes: list[Chaptered]) -> str:
    digest = hashlib.sha256()
    for one in episodes:
        digest.update(repr((one.id, one.episode.text, one.chapters)).encode())
    return digest.hexdigest()
