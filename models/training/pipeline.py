"""Training pipeline: prepare, train and export a recipe, or run its ablation.

`run_recipe` makes a model directory that workers and the API load. `run_ablation` trains the recipe again and again,
each time with one part removed or exchanged. The parts are those of the unified framework (arXiv 2303.13416): query
weighting, document weighting, expansion, regulariser; then the activation, the teachers and the hard negatives.
"""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from models.export.export import ExportOptions, export_encoder
from models.training.evaluation import BEST, EVALUATION, JudgedQueries, read_best_evaluation, read_curve
from models.training.prepare import OpenIndexCandidates, open_start, prepare_material
from models.training.recipe import EncoderRecipe, TeacherChoice, TrainingRecipe
from models.training.run_directory import hold_run_directory, is_main_process, is_same_run
from models.training.train import (
    ProgressReporter,
    SilentReporter,
    TrainingMaterial,
    choose_precision,
    train_encoder,
)
from services.encoders.manifest import NAME_PATTERN
from services.errors import ConfigurationError

# Names of a run's own directories, which lie beside the encoder.
_RUN_ENTRIES = (BEST, "checkpoints", "vectors", "questions")
RECORDED_PACKAGES = ("torch", "transformers", "sentence-transformers", "onnx")
FULL_RECIPE = "whole"


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
    if recipe.encoder.document_weighting == "binary":
        raise ConfigurationError(
            "bad_recipe",
            "An encoder with binary document weights has no model to serve; it is for `sparsewell train ablation`. "
            "Set document_weighting = learned.",
        )
    choose_precision(recipe)  # fails here, not after hours of teachers
    began = time.monotonic()
    with hold_run_directory(out):
        local_recipe = recipe.model_copy(update={"start": open_start(recipe.start, out)})
        material = prepare_material(local_recipe, out, show, index=index, judged=judged)
        best = train_encoder(
            local_recipe, material, out, copy_to=copy_to, report=show.trained, evaluated=show.evaluated
        )
        best_evaluation = read_best_evaluation(out)
        if best_evaluation is not None and best_evaluation["step"] == 0:
            show.report("No evaluation was better than that of the start: the start is exported.")
        if is_main_process():
            package_encoder(best, out / encoder_name, recipe, material, read_curve(out), record or {})
    show.report(f"Done after {time.monotonic() - began:,.0f} s.")
    return out / encoder_name


def checked_encoder_name(name: str) -> str:
    """Return the name if a manifest may have it. Raises ConfigurationError (`bad_encoder_name`)."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigurationError(
            "bad_encoder_name",
            f"{name!r} cannot be an encoder's name: at most 64 lower-case letters, digits, dots, dashes, underscores. "
            "Say --name.",
        )
    if name in _RUN_ENTRIES:
        raise ConfigurationError(
            "bad_encoder_name", f"A run has a directory of its own called {name}: choose another --name."
        )
    return name


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
    return {"step": entry["step"], "ndcg_at_10": entry["mean"], "collections": entry["collections"]}


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
    recipe: TrainingRecipe, out: Path, only: Sequence[str], show: ProgressReporter, index: OpenIndexCandidates | None
) -> list[AblationRow]:
    recipe = recipe.model_copy(update={"start": open_start(recipe.start, out)})
    rows = []
    for variant in ablation_variants(recipe, only):
        directory = out / variant.name.replace(" ", "-").replace("/", "-")
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
        best = max(curve, key=lambda entry: float(entry["mean"]))
        reported = [collection.name for collection in recipe.reported]
        rows.append(AblationRow.of(variant.name, best, curve[-1]["seconds"], reported))
        (out / "ablation.json").write_text(
            json.dumps({"recipe": json.loads(recipe.model_dump_json()), "rows": [vars(row) for row in rows]}, indent=2)
            + "\n",
            encoding="utf-8",
        )
    return rows


def _is_finished(directory: Path, recipe: TrainingRecipe) -> bool:
    return is_same_run(recipe, directory) and any(entry["step"] >= recipe.steps for entry in read_curve(directory))


@dataclass(frozen=True)
class AblationVariant:
    """Variant of an ablation: its recipe, and a name that says how it differs from the whole recipe (`whole`)."""

    name: str
    recipe: TrainingRecipe


def ablation_variants(recipe: TrainingRecipe, only: Sequence[str] = ()) -> list[AblationVariant]:
    """Return the whole recipe, then a variant for each part that can be removed or exchanged; `only` selects by name.

    Raises ConfigurationError (`unknown_variant`).
    """
    encoder = recipe.encoder
    changes: dict[str, dict[str, Any]] = {}
    for weighting in ("none", "idf", "learned"):
        if weighting != encoder.query_weighting:
            changes[f"query weighting {weighting}"] = {"encoder": {"query_weighting": weighting}}
    if encoder.document_weighting == "learned":
        bare = {"document_weighting": "binary", "expansion": False, "regulariser": "none", "activation": "log1p_relu"}
        changes["document weighting binary"] = {"encoder": bare | {"l0_threshold": None}}
    if encoder.expansion:
        changes["no expansion"] = {"encoder": {"expansion": False}}
    if encoder.document_weighting == "learned":
        changes |= _weight_changes(encoder)
    if recipe.negatives.sources and recipe.negatives.count:
        changes["no hard negatives"] = {"negatives": {"sources": (), "count": 0}}
    if recipe.teachers:
        changes["no teachers"] = {
            "teachers": (),
            "consistency": None,
            "negatives": {"sources": _remaining_sources(recipe, ())},
        }
        if len(recipe.teachers) > 1:
            for at, teacher in enumerate(recipe.teachers):
                rest = tuple(other for position, other in enumerate(recipe.teachers) if position != at)
                name = f"no teacher {teacher.kind} {teacher.name}".strip()
                changes[name] = {"teachers": rest, "negatives": {"sources": _remaining_sources(recipe, rest)}}
    variants = [
        AblationVariant(FULL_RECIPE, recipe),
        *(AblationVariant(name, _change_recipe(recipe, change)) for name, change in changes.items()),
    ]
    unknown = set(only) - {variant.name for variant in variants}
    if unknown:
        names = ", ".join(variant.name for variant in variants)
        raise ConfigurationError(
            "unknown_variant", f"No variant is called {', '.join(sorted(unknown))}; the variants are: {names}."
        )
    return [variant for variant in variants if not only or variant.name in (*only, FULL_RECIPE)]


def _weight_changes(encoder: EncoderRecipe) -> dict[str, dict[str, Any]]:
    """Return the variants of regulariser and activation; binary weights have neither."""
    changes: dict[str, dict[str, Any]] = {}
    for regulariser in ("none", "flops", "idf_flops", "l1"):
        if regulariser != encoder.regulariser:
            keeps_mask = regulariser in ("flops", "idf_flops")
            mask = {} if keeps_mask else {"l0_threshold": None}
            changes[f"regulariser {regulariser}"] = {"encoder": {"regulariser": regulariser} | mask}
    if encoder.l0_threshold is not None:
        changes["no l0 mask"] = {"encoder": {"l0_threshold": None}}
    other = "log1p_relu" if encoder.activation == "log1p_log1p_relu" else "log1p_log1p_relu"
    changes[f"activation {other}"] = {"encoder": {"activation": other}}
    return changes


def _remaining_sources(recipe: TrainingRecipe, teachers: Sequence[TeacherChoice]) -> list[str]:
    """Return the sources of hard negatives that these teachers leave."""
    kinds = {"bm25", "index"} | {teacher.kind for teacher in teachers}
    return [source for source in recipe.negatives.sources if source in kinds]


def _change_recipe(recipe: TrainingRecipe, change: Mapping[str, Any]) -> TrainingRecipe:
    members = recipe.model_dump()
    for name, value in change.items():
        members[name] = members[name] | value if isinstance(value, dict) else value
    if not members["teachers"] and not members["contrastive_weight"]:
        members["contrastive_weight"] = 1.0
    return recipe.changed(**members)


@dataclass(frozen=True)
class AblationRow:
    """Best evaluation of a variant: mean NDCG@10 of the encoder alone and with BM25, and its costs."""

    name: str
    sparse: float
    hybrid: float
    weights_a_document: float
    flops: float
    seconds: float

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any], seconds: float, reported: Sequence[str] = ()) -> AblationRow:
        """Average an evaluation over the collections that choose the best; `reported` collections choose nothing."""
        judged = [figures for collection, figures in entry["collections"].items() if collection not in reported]
        mean = {key: sum(figures[key] for figures in judged) / len(judged) for key in judged[0]}
        return cls(
            name, entry["mean"], round(mean["hybrid"], 4), round(mean["weights_a_document"], 1),
            round(mean["flops"], 2), round(seconds, 1),
        )  # fmt: skip


def ablation_table(rows: Sequence[AblationRow]) -> str:
    """Format a Markdown table: each variant with its difference from the whole recipe, in points of NDCG@10."""
    base = rows[0]
    lines = [
        "| variant | NDCG@10 | points | with BM25 | points | weights a document | products a query and document | s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        points = [100 * (row.sparse - base.sparse), 100 * (row.hybrid - base.hybrid)]
        shown = ["", ""] if row is base else [f"{value:+.1f}" for value in points]
        lines.append(
            f"| {row.name} | {row.sparse:.4f} | {shown[0]} | {row.hybrid:.4f} | {shown[1]} "
            f"| {row.weights_a_document:.0f} | {row.flops:.2f} | {row.seconds:.0f} |"
        )
    return "\n".join(lines)
