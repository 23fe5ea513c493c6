"""Variants of an ablation: a recipe with one part removed or exchanged, and the table of their figures.

`ablation_variants` derives the recipes, `models.training.pipeline.run_ablation` trains them. The parts are those of the
unified framework (arXiv 2303.13416): query weighting, document weighting, expansion, regulariser; then the activation,
the teachers and the hard negatives. Each variant is compared with the recipe from which it differs in one part, so
binary and MLP weights, which cannot expand, are compared with the recipe without expansion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.significance import compare_rankings
from models.training.recipe import TeacherChoice, TrainingRecipe
from services.errors import ConfigurationError

FULL_RECIPE = "whole"
NO_EXPANSION, MLP = "no expansion", "document weighting mlp"
# Joins the names of variants that are changed together.
AND = " + "
# Its words take the place of those of docT5query or TILDE in the paper.
EXPANDING_ENCODER = "projected-minilm-l6"
TOP_K = 100


@dataclass(frozen=True)
class AblationVariant:
    """Variant of an ablation: its recipe, and a name that says how it differs from the whole recipe (`whole`).

    `against` is the name of the variant from which it differs in one part.
    """

    name: str
    recipe: TrainingRecipe
    against: str = FULL_RECIPE

    @property
    def directory_name(self) -> str:
        """Return the name of the variant's directory."""
        return self.name.replace(" ", "-").replace("/", "-")


@dataclass(frozen=True)
class _Change:
    members: Mapping[str, Any]
    against: str = FULL_RECIPE


def ablation_variants(recipe: TrainingRecipe, only: Sequence[str] = ()) -> list[AblationVariant]:
    """Return the whole recipe, then a variant for each part that can be removed or exchanged; `only` selects by name.

    A name in `only` may join several, as in "no expansion + query weighting mlm": the changes are made together, and
    the variant is compared with the first of them. A variant that another is compared with is included.

    Raises ConfigurationError: `unknown_variant`, and `bad_recipe` for changes that contradict each other.
    """
    changes = _query_changes(recipe) | _document_changes(recipe) | _penalty_changes(recipe) | _data_changes(recipe)
    names = list(changes) if not only else [name for name in only if name != FULL_RECIPE]
    unknown = {part for name in names for part in name.split(AND)} - set(changes)
    if unknown:
        raise ConfigurationError(
            "unknown_variant",
            f"No variant is called {', '.join(sorted(unknown))}; the variants are: "
            f"{', '.join((FULL_RECIPE, *changes))}.",
        )
    variants = {FULL_RECIPE: AblationVariant(FULL_RECIPE, recipe)}
    for name in names:
        _add_variant(variants, name, recipe, changes)
    return list(variants.values())


def _add_variant(
    variants: dict[str, AblationVariant], name: str, recipe: TrainingRecipe, changes: Mapping[str, _Change]
) -> None:
    """Add a variant after the one that it is compared with."""
    if name in variants:
        return
    parts = name.split(AND)
    against = parts[0] if len(parts) > 1 else changes[name].against
    _add_variant(variants, against, recipe, changes)
    changed = _change_recipe(recipe, [changes[part].members for part in parts])
    variants[name] = AblationVariant(name, changed, against)


def _query_changes(recipe: TrainingRecipe) -> dict[str, _Change]:
    """Return the other query weightings. A model needs the penalty of queries; MLP needs the chunked head."""
    encoder = recipe.encoder
    penalty = recipe.query_regulariser_weight or recipe.regulariser_weight
    found: dict[str, _Change] = {}
    for weighting in ("none", "idf", "learned", "mlp", "mlm"):
        if weighting == encoder.query_weighting:
            continue
        if weighting in ("mlp", "mlm") and (encoder.document_weighting == "binary" or encoder.head == "plain"):
            continue
        found[f"query weighting {weighting}"] = _Change(
            {
                "encoder": {"query_weighting": weighting},
                "query_regulariser_weight": penalty if weighting == "mlm" else 0.0,
            }
        )
    return found


def _document_changes(recipe: TrainingRecipe) -> dict[str, _Change]:
    """Return the other document weightings, expansions and activations; binary weights have none."""
    encoder = recipe.encoder
    if encoder.document_weighting == "binary":
        return {}
    found: dict[str, _Change] = {}
    plain = FULL_RECIPE
    if encoder.expansion:
        found[NO_EXPANSION] = _Change({"encoder": {"expansion": False}})
        plain = NO_EXPANSION
    no_penalty = {"regulariser": "none", "l0_threshold": None, "top_k": None}
    binary = {"document_weighting": "binary", "expansion": False, "activation": "log1p_relu"} | no_penalty
    if not encoder.uses_model_for_queries:
        found["document weighting binary"] = _Change({"encoder": binary, "target_weights": None}, plain)
    if encoder.head == "chunked":
        by_token = {"document_weighting": "mlp", "expansion": False}
        if encoder.document_weighting != "mlp":
            found[MLP] = _Change({"encoder": by_token}, plain)
        if not encoder.expand_by:
            against = MLP if MLP in found else FULL_RECIPE
            found["document weighting expmlp"] = _Change(
                {"encoder": by_token | {"expand_by": EXPANDING_ENCODER}}, against
            )
        if encoder.document_weighting != "cls_mlm":
            found["document weighting cls_mlm"] = _Change({"encoder": {"document_weighting": "cls_mlm"}})
    other = "log1p_relu" if encoder.activation == "log1p_log1p_relu" else "log1p_log1p_relu"
    found[f"activation {other}"] = _Change({"encoder": {"activation": other}})
    return found


def _penalty_changes(recipe: TrainingRecipe) -> dict[str, _Change]:
    """Return the other regularisers; binary weights have none."""
    encoder = recipe.encoder
    found: dict[str, _Change] = {}
    if encoder.document_weighting == "binary":
        return found
    for regulariser in ("none", "flops", "idf_flops", "l1", "top_k"):
        if regulariser == encoder.regulariser:
            continue
        members: dict[str, Any] = {"encoder": {"regulariser": regulariser, "top_k": None}}
        if regulariser not in ("flops", "idf_flops"):
            members["encoder"]["l0_threshold"] = None
        if regulariser in ("none", "top_k"):
            members["target_weights"] = None
        if regulariser == "top_k":
            members["encoder"]["top_k"] = round(recipe.target_weights or TOP_K)
        found[f"regulariser {regulariser}"] = _Change(members)
    if encoder.l0_threshold is not None:
        found["no l0 mask"] = _Change({"encoder": {"l0_threshold": None}})
    return found


def _data_changes(recipe: TrainingRecipe) -> dict[str, _Change]:
    """Return the variants without hard negatives, without teachers, and without each teacher."""
    found: dict[str, _Change] = {}
    # Some teachers score nothing but a pair's passage and its hard negatives.
    if recipe.mines and all(teacher.scores_any_passage for teacher in recipe.teachers):
        found["no hard negatives"] = _Change(
            {
                "negatives": {"sources": (), "count": 0},
                # FLOPS are added over the columns of passages. A variant without negatives has one column, so the same
                # number would be a fraction of the penalty, and the variant would differ in two things.
                "regulariser_weight": recipe.regulariser_weight * (1 + recipe.negatives.count),
            }
        )
    if recipe.distils:
        # The same pairs and the same negatives: the variant differs in the targets alone.
        found["no teachers"] = _Change({"distillation_scale": 0.0})
        for at, teacher in enumerate(recipe.teachers if len(recipe.teachers) > 1 else ()):
            rest = tuple(other for position, other in enumerate(recipe.teachers) if position != at)
            members: dict[str, Any] = {
                "teachers": rest,
                "negatives": {"sources": _remaining_sources(recipe, rest)},
            }
            if not any(other.scores_any_passage for other in rest):
                members["consistency"] = None
            found[f"no teacher {teacher.kind} {teacher.name}".strip()] = _Change(members)
    return found


def _remaining_sources(recipe: TrainingRecipe, teachers: Sequence[TeacherChoice]) -> list[str]:
    """Return the sources of hard negatives that these teachers leave."""
    kinds = {"bm25", "index"} | {teacher.kind for teacher in teachers}
    return [source for source in recipe.negatives.sources if source in kinds]


def _change_recipe(recipe: TrainingRecipe, changes: Sequence[Mapping[str, Any]]) -> TrainingRecipe:
    members = recipe.model_dump()
    for change in changes:
        for name, value in change.items():
            members[name] = members[name] | value if isinstance(value, dict) else value
    if not members["distillation_scale"] and not members["contrastive_weight"]:
        members["contrastive_weight"] = 1.0
    return recipe.changed(**members)


@dataclass(frozen=True)
class AblationRow:
    """Best evaluation of a variant: mean NDCG@10 of the encoder alone and with BM25, and its costs.

    `difference` compares the encoder alone with that of the variant `against`, query by query, over all collections. It
    is None for the whole recipe, and for runs of before, which kept no figures by query.
    """

    name: str
    sparse: float
    hybrid: float
    weights_a_document: float
    flops: float
    seconds: float
    against: str = FULL_RECIPE
    difference: Mapping[str, float] | None = None

    @classmethod
    def of(
        cls,
        name: str,
        entry: Mapping[str, Any],
        seconds: float,
        reported: Sequence[str] = (),
        *,
        against: str = FULL_RECIPE,
        reference: Mapping[str, Any] | None = None,
    ) -> AblationRow:
        """Average an evaluation over the collections that choose the best; `reported` collections choose nothing.

        `reference` is the evaluation of the variant `against`.
        """
        judged = [figures for collection, figures in entry["collections"].items() if collection not in reported]
        mean = {key: sum(figures[key] for figures in judged) / len(judged) for key in judged[0]}
        return cls(
            name, entry["mean"], round(mean["hybrid"], 4), round(mean["weights_a_document"], 1),
            round(mean["flops"], 2), round(seconds, 1), against, _compare(entry, reference),
        )  # fmt: skip


def _compare(entry: Mapping[str, Any], reference: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Return difference, bounds of its 95 % interval (paired bootstrap), and p of the paired randomisation test."""
    if reference is None or not entry.get("by_query") or not reference.get("by_query"):
        return None
    found = compare_rankings(reference["by_query"], entry["by_query"])
    figures = {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p}
    return {name: round(value, 5) for name, value in figures.items()}


def ablation_table(rows: Sequence[AblationRow]) -> str:
    """Format a Markdown table: each variant with its difference from another, in points of NDCG@10.

    The interval and p are those of the mean over all queries, where `points` is a mean over collections.
    """
    of = {row.name: row for row in rows}
    lines = [
        "| variant | compared with | NDCG@10 | points | 95 % of all queries | p | with BM25 | points "
        "| weights a document | products a query and document | s |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        base = of.get(row.against)
        compared = base is not None and base is not row
        points = [100 * (row.sparse - base.sparse), 100 * (row.hybrid - base.hybrid)] if compared and base else []
        shown = [f"{value:+.1f}" for value in points] or ["", ""]
        found = row.difference
        chance = "|" if found is None else f"{100 * found['low']:+.1f} to {100 * found['high']:+.1f} | {found['p']:.3f}"
        lines.append(
            f"| {row.name} | {row.against if compared else ''} | {row.sparse:.4f} | {shown[0]} | {chance} "
            f"| {row.hybrid:.4f} | {shown[1]} | {row.weights_a_document:.0f} | {row.flops:.2f} | {row.seconds:.0f} |"
        )
    return "\n".join(lines)
