"""What each part of an encoder is worth: the same run again and again, each time with one part taken out or exchanged.

The parts are those of the unified framework (arXiv 2303.13416): query weighting, document weighting, expansion,
regulariser; and beside them the activation, the teachers and the hard negatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.training.recipe import TeacherChoice, TrainingRecipe
from models.training.recipe_encoder import EncoderRecipe
from services.errors import ConfigurationError


@dataclass(frozen=True)
class Variant:
    """A recipe and what it differs in from the whole one, which is called `whole`."""

    name: str
    recipe: TrainingRecipe


WHOLE = "whole"


def variants(recipe: TrainingRecipe, only: Sequence[str] = ()) -> list[Variant]:
    """The whole recipe first, then everything that can be taken out of it; `only` picks some by name."""
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
        changes |= _of_weights(encoder)
    if recipe.negatives.sources and recipe.negatives.count:
        changes["no hard negatives"] = {"negatives": {"sources": (), "count": 0}}
    if recipe.teachers:
        changes["no teachers"] = {"teachers": (), "consistency": None, "negatives": {"sources": _sources(recipe, ())}}
        if len(recipe.teachers) > 1:
            for at, teacher in enumerate(recipe.teachers):
                rest = tuple(one for place, one in enumerate(recipe.teachers) if place != at)
                name = f"no teacher {teacher.kind} {teacher.name}".strip()
                changes[name] = {"teachers": rest, "negatives": {"sources": _sources(recipe, rest)}}
    made = [Variant(WHOLE, recipe), *(Variant(name, _changed(recipe, change)) for name, change in changes.items())]
    unknown = set(only) - {variant.name for variant in made}
    if unknown:
        names = ", ".join(variant.name for variant in made)
        raise ConfigurationError(
            "unknown_variant", f"No variant is called {', '.join(sorted(unknown))}; there are: {names}."
        )
    return [variant for variant in made if not only or variant.name in (*only, WHOLE)]


def _of_weights(encoder: EncoderRecipe) -> dict[str, dict[str, Any]]:
    """What regularises and activates weights; binary ones have neither."""
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


def _sources(recipe: TrainingRecipe, teachers: Sequence[TeacherChoice]) -> list[str]:
    """The sources of hard negatives that are left when only these teachers are."""
    kinds = {"bm25", "index"} | {teacher.kind for teacher in teachers}
    return [source for source in recipe.negatives.sources if source in kinds]


def _changed(recipe: TrainingRecipe, change: Mapping[str, Any]) -> TrainingRecipe:
    members = recipe.model_dump()
    for name, value in change.items():
        members[name] = members[name] | value if isinstance(value, dict) else value
    if not members["teachers"] and not members["contrastive_weight"]:
        members["contrastive_weight"] = 1.0
    return recipe.changed(**members)


@dataclass(frozen=True)
class Row:
    """A variant's best evaluation: mean NDCG@10 of the encoder alone and with BM25, and what it costs."""

    name: str
    sparse: float
    hybrid: float
    weights_a_document: float
    flops: float
    seconds: float

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any], seconds: float, reported: Sequence[str] = ()) -> Row:
        """Means over the collections that choose the best, as `entry`'s own is; those in `reported` choose nothing."""
        found = [figures for collection, figures in entry["collections"].items() if collection not in reported]
        mean = {key: sum(one[key] for one in found) / len(found) for key in found[0]}
        return cls(
            name, entry["mean"], round(mean["hybrid"], 4), round(mean["weights_a_document"], 1),
            round(mean["flops"], 2), round(seconds, 1),
        )  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Markdown: each variant with its difference to the whole recipe, in points of NDCG@10."""
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
