"""Command `sparsewell train own` for a trained encoder: it trains on for a corpus without queries and judgements.

`train_own_encoder` makes pairs from the corpus and holds some out (`models.training.own.held_out`), trains with
`models.training.pipeline.run_recipe`, and compares the new encoder with the start on held-out queries
(`models.training.own.report`). Half of these queries choose the checkpoint; the other half is reported. A projected
encoder is refitted instead (`models.training.own.refit`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from models.export.collection import read_collection
from models.judged_queries import JudgedQueries
from models.progress import ProgressReporter, SilentReporter, StageTimer
from models.training.evaluation import read_best_evaluation, read_curve
from models.training.own.comparison import compare_with_start
from models.training.own.held_out import (
    CorpusOptions,
    held_out_queries,
    prepare_corpus,
    reduce_documents,
    split_held_out,
)
from models.training.own.report import describe_machine, describe_pairs, describe_run, write_report
from models.training.pairs import write_pairs
from models.training.pipeline import RECORDED_PACKAGES, run_recipe
from models.training.recipe import TrainingRecipe, parse_recipe
from models.training.run_directory import checked_encoder_name
from services.encoders.manifest import read_manifest, resolve_model_directory


@dataclass(frozen=True)
class OwnCorpusOptions(CorpusOptions):
    """Options of a training; the corpus and the start decide the rest.

    `teachers` are (kind, name, weight). `curve_documents` is the number of documents that an evaluation of the learning
    curve encodes.
    """

    teachers: Sequence[tuple[str, str, float]]
    steps: int = 300
    batch: int = 12
    learning_rate: float = 1e-4
    # The same strength as .001 had for one mean over the columns of passages.
    regulariser_weight: float = 0.00025
    passage_pieces: int = 160
    curve_documents: int = 600


def train_own_encoder(
    corpus: Path, out: Path, options: OwnCorpusOptions, *, name: str, show: ProgressReporter | None = None
) -> Path:
    """Make pairs, train from the start, compare on held-out queries, write the report. Return the model directory.

    Raises InvalidInput (`no_documents`, `corpus_too_small`, `bad_split`) and the errors of `run_recipe`.
    """
    show = show or SilentReporter()
    timer = StageTimer()
    checked_encoder_name(name)
    # Errors of the options must come before pairs and training, which take hours.
    recipe = _make_recipe(options, out)
    judgements = None if options.judgements is None else read_collection(options.judgements.resolve())
    with timer.stage("pairs"):
        prepared = prepare_corpus(corpus, options, show)
        train = prepared.split.train
        out.mkdir(parents=True, exist_ok=True)
        write_pairs(out / "pairs.jsonl.gz", (train.pair(link) for link in range(len(train))))
    choosing, reporting = split_held_out(held_out_queries(prepared.split, options.among, options.seed))
    with timer.stage("training"):
        model = run_recipe(
            recipe, out, name=name, show=show, judged=[reduce_documents(choosing, options.curve_documents)]
        )
    # a resumed run adds the time of its earlier calls
    timer.seconds["training"] = max(timer.seconds["training"], read_curve(out)[-1]["seconds"])
    with timer.stage("comparing"):
        sets = [reporting, *([JudgedQueries.of(judgements, len(judgements.ids))] if judgements else [])]
        encoders, compared = compare_with_start(
            resolve_model_directory(options.start).resolve(), model.resolve(), sets, show
        )
    best_step = (read_best_evaluation(out) or {"step": 0})["step"]
    teachers = ", ".join(
        " ".join(filter(None, (kind, title, f"{weight:g}"))) for kind, title, weight in options.teachers
    )
    method = (
        f"{len(prepared.documents):,} documents; pairs: {describe_pairs(prepared.pairs)}. {recipe.steps:,} steps of "
        f"{recipe.batch} pairs from {options.start}; teachers: {teachers or 'none'}. Time: {timer}, "
        f"on {describe_machine()}. The best checkpoint is that of step {best_step:,}"
        f"{', which is the start itself' if best_step == 0 else ''}; "
        f"{len(choosing.queries):,} other held-out queries chose it."
    )
    write_report(
        out,
        {
            **describe_run(prepared, options.start, model, timer),
            "chosen_by": len(choosing.queries),
            "steps": recipe.steps,
            "batch": recipe.batch,
            "best_step": best_step,
            "teachers": teachers,
            "versions": {package: version(package) for package in RECORDED_PACKAGES},
            "recipe": json.loads(recipe.model_dump_json()),
        },
        method,
        compared,
        encoders,
        curve=read_curve(out),
    )
    show.report(f"The report is {out / 'report.md'}.")
    return model


def _make_recipe(options: OwnCorpusOptions, out: Path) -> TrainingRecipe:
    manifest = read_manifest(resolve_model_directory(options.start))
    sources = [kind for kind in ("dense", "bm25") if any(teacher[0] == kind for teacher in options.teachers)]
    return parse_recipe(
        {
            "start": options.start,
            "pairs": [{"path": out / "pairs.jsonl.gz"}],
            "teachers": [{"kind": kind, "name": name, "weight": weight} for kind, name, weight in options.teachers],
            "encoder": {
                "activation": (manifest.model_extra or {}).get("activation", "log1p_relu"),
                "passage_pieces": min(options.passage_pieces, manifest.max_pieces),
            },
            "consistency": {"within": 10},
            # Every teacher ranks random passages correctly; hard negatives show what a good one knows.
            "negatives": {"sources": sources, "count": 3, "depth": 30},
            "held_out": 0.0,
            "steps": options.steps,
            "batch": options.batch,
            "learning_rate": options.learning_rate,
            "regulariser_weight": options.regulariser_weight,
            "evaluate_every": max(1, options.steps // 6),
            "seed": options.seed,
            "licence": manifest.licence,
        },
        "the recipe made of the options",
    )
