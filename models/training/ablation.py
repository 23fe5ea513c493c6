"""Variants of an ablation: a recipe with one part removed or exchanged, and the table of their figures.

`ablation_variants` derives the recipes, `models.training.pipeline.run_ablation` trains them. The parts are those of the
unified framework (arXiv 2303.13416): query weighting, document weighting, expansion, regulariser; then the activation,
the teachers and the hard negatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.significance import compare_rankings
from models.training.recipe import EncoderRecipe, TeacherChoice, TrainingRecipe
from services.errors import ConfigurationError

FULL_RECIPE = "whole"


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
    # Some teachers score nothing but a pair's passage and its hard negatives.
    if recipe.mines and all(teacher.scores_any_passage for teacher in recipe.teachers):
        changes["no hard negatives"] = {
            "negatives": {"sources": (), "count": 0},
            # FLOPS are added over the columns of passages. A variant without negatives has one column, so the same
            # number would be a fraction of the penalty, and the variant would differ in two things.
            "regulariser_weight": recipe.regulariser_weight * (1 + recipe.negatives.count),
        }
    if recipe.distils:
        # The same pairs and the same negatives: the variant differs in the targets alone.
        changes["no teachers"] = {"distillation_scale": 0.0}
        for at, teacher in enumerate(recipe.teachers if len(recipe.teachers) > 1 else ()):
            rest = tuple(other for position, other in enumerate(recipe.teachers) if position != at)
            name = f"no teacher {teacher.kind} {teacher.name}".strip()
            changes[name] = {"teachers": rest, "negatives": {"sources": _remaining_sources(recipe, rest)}}
            if not any(other.scores_any_passage for other in rest):
                changes[name]["consistency"] = None
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
    if not members["distillation_scale"] and not members["contrastive_weight"]:
        members["contrastive_weight"] = 1.0
    return recipe.changed(**members)


@dataclass(frozen=True)
class AblationRow:
    """Best evaluation of a variant: mean NDCG@10 of the encoder alone and with BM25, and its costs.

    `over_whole` compares the encoder alone with that of the whole recipe, query by query, over all collections. It is
    None for the whole recipe, and for runs of before, which kept no figures by query.
    """

    name: str
    sparse: float
    hybrid: float
    weights_a_document: float
    flops: float
    seconds: float
    over_whole: Mapping[str, float] | None = None

    @classmethod
    def of(
        cls,
        name: str,
        entry: Mapping[str, Any],
        seconds: float,
        reported: Sequence[str] = (),
        whole: Mapping[str, Any] | None = None,
    ) -> AblationRow:
        """Average an evaluation over the collections that choose the best; `reported` collections choose nothing.

        `whole` is the evaluation of the whole recipe.
        """
        judged = [figures for collection, figures in entry["collections"].items() if collection not in reported]
        mean = {key: sum(figures[key] for figures in judged) / len(judged) for key in judged[0]}
        return cls(
            name, entry["mean"], round(mean["hybrid"], 4), round(mean["weights_a_document"], 1),
            round(mean["flops"], 2), round(seconds, 1), _compare_with_whole(entry, whole),
        )  # fmt: skip


def _compare_with_whole(entry: Mapping[str, Any], whole: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Return difference, bounds of its 95 % interval (paired bootstrap), and p of the paired randomisation test."""
    if whole is None or not entry.get("by_query") or not whole.get("by_query"):
        return None
    found = compare_rankings(whole["by_query"], entry["by_query"])
    figures = {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p}
    return {name: round(value, 5) for name, value in figures.items()}


def ablation_table(rows: Sequence[AblationRow]) -> str:
    """Format a Markdown table: each variant with its difference from the whole recipe, in points of NDCG@10.

    The interval and p are those of the mean over all queries, where `points` is a mean over collections.
    """
    base = rows[0]
    lines = [
        "| variant | NDCG@10 | points | 95 % of all queries | p | with BM25 | points | weights a document "
        "| products a query and document | s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        points = [100 * (row.sparse - base.sparse), 100 * (row.hybrid - base.hybrid)]
        shown = ["", ""] if row is base else [f"{value:+.1f}" for value in points]
        found = row.over_whole
        chance = "|" if found is None else f"{100 * found['low']:+.1f} to {100 * found['high']:+.1f} | {found['p']:.3f}"
        lines.append(
            f"| {row.name} | {row.sparse:.4f} | {shown[0]} | {chance} | {row.hybrid:.4f} | {shown[1]} "
            f"| {row.weights_a_document:.0f} | {row.flops:.2f} | {row.seconds:.0f} |"
        )
    return "\n".join(lines)
