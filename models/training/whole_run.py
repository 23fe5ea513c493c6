"""A recipe from beginning to end: prepare, train, export to a model directory, say what was done."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from models.training.ablation import WHOLE, Row, variants
from models.training.curve import read_best, read_curve
from models.training.evaluation import Judged
from models.training.packaging import encoder_name, package
from models.training.prepare import IndexSource, opened_start, prepare
from models.training.recipe import TrainingRecipe
from models.training.run import chosen_precision, leads, same_run, train
from models.training.show import Show, Silent
from services.errors import ConfigurationError


def run(
    recipe: TrainingRecipe,
    out: Path,
    *,
    name: str | None = None,
    copy_to: Path | None = None,
    show: Show | None = None,
    record: dict[str, Any] | None = None,
    index: IndexSource | None = None,
    judged: Sequence[Judged] = (),
) -> Path:
    """Trains by the recipe and returns the model directory OUT/NAME, whose name is that of OUT unless given.

    What is there already is not done again.

    `judged` is evaluated on beside the recipe's collections; `record` is added to the manifest's training record;
    `index` has the candidates of negatives.index.

    Raises ConfigurationError and InvalidInput, see `models.training.prepare` and `models.training.run`.
    """
    show = show or Silent()
    chosen = encoder_name(name or out.resolve().name)
    if recipe.encoder.document_weighting == "binary":
        raise ConfigurationError(
            "bad_recipe",
            "With binary document weights there is no model that could be served: that is for `sparsewell train "
            "ablation`. Say document_weighting = learned.",
        )
    chosen_precision(recipe)  # (what this machine cannot do shall not cost hours of teachers)
    began = time.monotonic()
    with _alone(out):
        opened = recipe.model_copy(update={"start": opened_start(recipe.start, out)})
        material = prepare(opened, out, show, index=index, judged=judged)
        best = train(opened, material, out, copy_to=copy_to, report=show.trained, evaluated=show.evaluated)
        kept = read_best(out)
        if kept is not None and kept["step"] == 0:
            show.say("No evaluation was better than the start's: what is exported is the start.")
        if leads():
            package(best, out / chosen, recipe, material, read_curve(out), record or {})
    show.say(f"Done after {time.monotonic() - began:,.0f} s.")
    return out / chosen


def ablate(
    recipe: TrainingRecipe,
    out: Path,
    only: Sequence[str] = (),
    *,
    show: Show | None = None,
    index: IndexSource | None = None,
) -> list[Row]:
    """Trains every variant in a directory of its own below `out`; those that are finished are read again.

    Returns a row each, the whole recipe first, and writes them to OUT/ablation.json.
    """
    chosen_precision(recipe)
    with _alone(out):
        return _ablate(recipe, out, only, show or Silent(), index)


def _ablate(recipe: TrainingRecipe, out: Path, only: Sequence[str], show: Show, index: IndexSource | None) -> list[Row]:
    recipe = recipe.model_copy(update={"start": opened_start(recipe.start, out)})
    rows = []
    for variant in variants(recipe, only):
        directory = out / variant.name.replace(" ", "-").replace("/", "-")
        if not _finished(directory, variant.recipe):
            show.say(f"Variant: {variant.name}.")
            material = prepare(variant.recipe, directory, show, vectors=out / "vectors", index=index)
            try:
                train(variant.recipe, material, directory, report=show.trained, evaluated=show.evaluated)
            except ConfigurationError as error:
                if error.code != "training_diverged" or variant.name == WHOLE:
                    raise
                show.say(f"{variant.name} has no row: {error}")  # (it would end so again, and the others never begin)
                continue
        curve = read_curve(directory)
        best = max(curve, key=lambda entry: float(entry["mean"]))
        reported = [collection.name for collection in recipe.reported]
        rows.append(Row.of(variant.name, best, curve[-1]["seconds"], reported))
        (out / "ablation.json").write_text(
            json.dumps({"recipe": json.loads(recipe.model_dump_json()), "rows": [vars(row) for row in rows]}, indent=2)
            + "\n",
            encoding="utf-8",
        )
    return rows


def _finished(directory: Path, recipe: TrainingRecipe) -> bool:
    return same_run(recipe, directory) and any(entry["step"] >= recipe.steps for entry in read_curve(directory))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the run's directory: two commands would write one curve. Of the devices of one run, the first holds it.

    Raises ConfigurationError (`run_in_progress`).
    """
    if not leads():
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(out / "run.lock").acquire(blocking=False)
    except Timeout:
        raise ConfigurationError(
            "run_in_progress", f"Another process trains in {out}: wait for it, or give another directory."
        ) from None
    with held:
        yield
