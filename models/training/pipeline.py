"""Training pipeline: prepare, train and export a recipe, or run its ablation.

`run_recipe` makes a model directory that workers and the API load. `publish_encoder` writes an encoder for
sentence-transformers and for OpenSearch's plugin. `run_ablation` trains the recipe again and again,
each time with one part removed or exchanged. The parts are those of the unified framework (arXiv 2303.13416): query
weighting, document weighting, expansion, regulariser; then the activation, the teachers and the hard negatives.
"""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from models.export.export import ExportOptions, export_encoder
from models.export.hub_import import read_json_object
from models.export.publish import finish_publication, recipe_of_manifest
from models.export.reopen import reopen_checkpoint
from models.judged_queries import JudgedQueries
from models.progress import ProgressReporter, SilentReporter
from models.training.ablation import FULL_RECIPE, AblationRow, ablation_variants
from models.training.architecture import build_encoder, save_checkpoint
from models.training.evaluation import EVALUATION, rank_evaluation, read_best_evaluation, read_curve
from models.training.mining import OpenIndexCandidates
from models.training.prepare import open_start, prepare_material
from models.training.recipe import RECIPE_FILE, EncoderRecipe, TrainingRecipe
from models.training.run_directory import checked_encoder_name, hold_run_directory, is_main_process, is_same_run
from models.training.train import TrainingMaterial, choose_precision, train_encoder
from services.directories import replace_directory
from services.encoders.manifest import MANIFEST_FILE
from services.encoders.query_table import QUERY_WEIGHTS_FILE
from services.errors import ConfigurationError

RECORDED_PACKAGES = ("torch", "transformers", "sentence-transformers", "onnx")


def run_recipe(
    recipe: TrainingRecipe,
    out: Path,
    *,
    name: str | None = None,
    copy_to: Path | None = None,
    show: ProgressReporter | None = None,
    record: dict[str, Any] | None = None,
    index: OpenIndexCandidates | None = None,
    judged: Sequence[JudgedQueries] = (),
) -> Path:
    """Train a recipe and return the model directory OUT/NAME; NAME is the name of OUT by default.

    Steps whose results exist are skipped. `judged` adds collections to the recipe's own; `record` is added to the
    manifest's training record; `index` opens the candidates of negatives.index.

    Raises ConfigurationError and InvalidInput, see `models.training.prepare` and `models.training.train`.
    """
    show = show or SilentReporter()
    encoder_name = checked_encoder_name(name or out.resolve().name)
    if not recipe.encoder.is_servable:
        raise ConfigurationError(
            "bad_recipe",
            "An encoder can be served with document_weighting learned, query_weighting none, idf or learned, and "
            "without top_k and expand_by. The other components are for `sparsewell train ablation`.",
        )
    choose_precision(recipe)  # fails here, not after hours of teachers
    began = time.monotonic()
    with hold_run_directory(out):
        local_recipe = recipe.model_copy(update={"start": open_start(recipe.start, out, show.report)})
        material = prepare_material(local_recipe, out, show, index=index, judged=judged)
        best = train_encoder(
            local_recipe, material, out, copy_to=copy_to, report=show.trained, evaluated=show.evaluated
        )
        best_evaluation = read_best_evaluation(out)
        if best_evaluation is not None and not best_evaluation.get("eligible", True):
            raise ConfigurationError(
                "too_dense",
                f"No checkpoint has at most {recipe.max_weights:g} weights a document, so no encoder is exported. "
                f"Raise regulariser_weight or max_weights in a new run. The best of all is in {best}.",
            )
        if best_evaluation is not None and best_evaluation["step"] == 0:
            show.report("No evaluation was better than that of the start: the start is exported.")
        if is_main_process():
            package_encoder(best, out / encoder_name, recipe, material, read_curve(out), record or {})
    show.report(f"Done after {time.monotonic() - began:,.0f} s.")
    return out / encoder_name


def package_encoder(
    checkpoint: Path,
    out: Path,
    recipe: TrainingRecipe,
    material: TrainingMaterial,
    curve: Sequence[dict[str, Any]],
    record: dict[str, Any],
) -> Path:
    """Export int8 to `out`, whose name becomes the encoder's, with a manifest that records the training."""
    best = json.loads((checkpoint / EVALUATION).read_bytes())
    description = {
        "licence": recipe.licence,
        "regulariser": recipe.encoder.regulariser,
        "training": {
            "recipe": json.loads(recipe.model_dump_json()),
            "pairs": material.pairs.counts(),
            "first": _figures(curve[0]),
            "best": _figures(best),
            "seconds": curve[-1]["seconds"],
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
            "versions": {package: version(package) for package in RECORDED_PACKAGES},
        }
        | record,
    }
    path = checkpoint.parent / "record.json"
    path.write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    export_encoder(ExportOptions(str(checkpoint), out, record=path, replace=True))
    return out


def _figures(entry: dict[str, Any]) -> dict[str, Any]:
    figures = {"step": entry["step"], "ndcg_at_10": entry["mean"], "collections": entry["collections"]}
    return figures | {"eligible": entry.get("eligible", True)}


def publish_encoder(source: Path, out: Path, *, licence: str | None = None) -> Path:
    """Write the encoder of `source` to `out` for sentence-transformers and for OpenSearch's plugin; return `out`.

    `source` is a checkpoint (OUT/best of a training) or a model directory of BERT or DistilBERT, whose int8 weights are
    restored. `licence` defaults to that of the manifest.

    Raises ConfigurationError: `not_an_encoder` for other directories, `target_exists`, and the codes of
    `reopen_checkpoint` and `build_encoder`.
    """
    if out.exists():
        raise ConfigurationError("target_exists", f"{out} exists: choose another directory.")
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if (source / MANIFEST_FILE).is_file():
            facts = read_json_object(source / MANIFEST_FILE)
            start = reopen_checkpoint(source, Path(folder) / "checkpoint")
            recipe = recipe_of_manifest(facts)
        elif (
            (source / QUERY_WEIGHTS_FILE).is_file()
            and (found := EncoderRecipe.read(source)) is not None
            and found.is_servable
        ):
            start, recipe = source, found
        else:
            raise ConfigurationError(
                "not_an_encoder",
                f"{source} is neither a servable checkpoint of a training ({QUERY_WEIGHTS_FILE}, {RECIPE_FILE}) nor a "
                f"model directory ({MANIFEST_FILE}).",
            )
        # The table of the start is the query table, whatever the recipe made it from.
        encoder = build_encoder(start, recipe.model_copy(update={"query_weighting": "learned", "regulariser": "flops"}))
        encoder.recipe = recipe
        fresh = Path(folder) / out.resolve().name
        save_checkpoint(encoder, fresh)
        finish_publication(fresh, licence or str(facts.get("licence") or "unknown"), recipe, facts)
        with replace_directory(out) as target:
            shutil.copytree(fresh, target, dirs_exist_ok=True)
    return out


def run_ablation(
    recipe: TrainingRecipe,
    out: Path,
    only: Sequence[str] = (),
    *,
    show: ProgressReporter | None = None,
    index: OpenIndexCandidates | None = None,
) -> list[AblationRow]:
    """Train every variant in its own directory below `out`; read finished variants again.

    Return a row for each, the whole recipe first, and write them to OUT/ablation.json.
    """
    choose_precision(recipe)
    with hold_run_directory(out):
        return _run_variants(recipe, out, only, show or SilentReporter(), index)


def _run_variants(
    recipe: TrainingRecipe,
    out: Path,
    only: Sequence[str],
    show: ProgressReporter,
    index: OpenIndexCandidates | None,
) -> list[AblationRow]:
    recipe = recipe.model_copy(update={"start": open_start(recipe.start, out, show.report)})
    rows: list[AblationRow] = []
    found: dict[str, dict[str, Any]] = {}
    for variant in ablation_variants(recipe, only):
        directory = out / variant.directory_name
        if not _is_finished(directory, variant.recipe):
            show.report(f"Variant: {variant.name}.")
            material = prepare_material(variant.recipe, directory, show, vectors=out / "vectors", index=index)
            try:
                train_encoder(variant.recipe, material, directory, report=show.trained, evaluated=show.evaluated)
            except ConfigurationError as error:
                if error.code != "training_diverged" or variant.name == FULL_RECIPE:
                    raise
                # it would diverge again, and the other variants would never begin
                show.report(f"{variant.name} has no row: {error}")
                continue
        curve = read_curve(directory)
        # All variants begin as the same encoder, so the start is not a result of a variant.
        trained_entries = [entry for entry in curve if entry["step"]] or curve
        found[variant.name] = max(trained_entries, key=rank_evaluation)
        reported = [collection.name for collection in recipe.reported]
        rows.append(
            AblationRow.of(
                variant.name,
                found[variant.name],
                curve[-1]["seconds"],
                reported,
                against=variant.against,
                reference=found.get(variant.against) if variant.name != FULL_RECIPE else None,
            )
        )
        (out / "ablation.json").write_text(
            json.dumps({"recipe": json.loads(recipe.model_dump_json()), "rows": [vars(row) for row in rows]}, indent=2)
            + "\n",
            encoding="utf-8",
        )
    return rows


def _is_finished(directory: Path, recipe: TrainingRecipe) -> bool:
    return is_same_run(recipe, directory) and any(entry["step"] >= recipe.steps for entry in read_curve(directory))
