"""Command `sparsewell train own`: an encoder for a corpus without queries and judgements.

`train_own_encoder` makes pairs from the corpus (`models.training.own.pairs`), holds out a tenth of them, at most 500,
trains with `models.training.pipeline.run_recipe`, and compares the new encoder with the start on held-out queries
(`models.training.own.report`). Half of these queries choose the checkpoint; the other half is reported.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from models.export.collection import read_collection
from models.export.throughput import cpu_name
from models.training.evaluation import JudgedQueries, read_best_evaluation, read_curve
from models.training.own.pairs import PairOptions, find_corpus_file, make_own_pairs, read_corpus
from models.training.own.report import (
    NEW,
    OLD,
    ServedVectors,
    add_start_difference,
    compare_encoders,
    encode_as_served,
    write_report,
)
from models.training.pairs import PairSet, join_pair_sets, split_pairs, write_pairs
from models.training.pipeline import RECORDED_PACKAGES, checked_encoder_name, run_recipe
from models.training.recipe import TrainingRecipe, parse_recipe
from models.training.storage import ReadReport
from models.training.train import ProgressReporter, SilentReporter
from services.encoders.manifest import read_manifest, resolve_model_directory

_MOST_HELD_OUT = 500
PairGenerator = Callable[[PairSet], PairSet]


@dataclass(frozen=True)
class OwnCorpusOptions:
    """Options of a run; the corpus and the start decide the rest.

    `teachers` are (kind, name, weight). `judgements` is a judged collection in BEIR layout, which is reported and never
    chooses. `more` adds pairs, for instance generated questions. `among` is the number of passages that a held-out
    query is ranked against, `curve_documents` the number that an evaluation of the learning curve encodes.
    """

    start: str
    teachers: Sequence[tuple[str, str, float]]
    steps: int = 300
    batch: int = 12
    learning_rate: float = 1e-4
    regulariser_weight: float = 0.001
    passage_pieces: int = 160
    judgements: Path | None = None
    among: int = 5000
    curve_documents: int = 600
    seed: int = 0
    pairs: PairOptions = field(default_factory=lambda: PairOptions(passage_words=100))
    more: PairGenerator | None = None


def train_own_encoder(
    corpus: Path, out: Path, options: OwnCorpusOptions, *, name: str, show: ProgressReporter | None = None
) -> Path:
    """Make pairs, train from the start, compare on held-out queries, write the report. Return the model directory.

    Raises InvalidInput (`no_documents`, `corpus_too_small`, `bad_split`) and the errors of `run_recipe`.
    """
    show = show or SilentReporter()
    timer = _StageTimer()
    checked_encoder_name(name)
    # Errors of the options must come before pairs and training, which take hours.
    recipe = _make_recipe(options, out)
    judgements = None if options.judgements is None else read_collection(options.judgements)
    with timer.stage("pairs"):
        report = ReadReport(str(find_corpus_file(corpus)))
        documents = list(read_corpus(corpus, report))
        if report.refused:
            refused = f"{sum(report.refused.values()):,} of {report.lines:,} lines left out"
            show.report(f"{refused}: {'; '.join(report.examples)}")
        pairs = make_own_pairs(documents, options.pairs)
        if options.more is not None:
            pairs = join_pair_sets([pairs, options.more(pairs)])
        split = split_pairs(pairs, 0.1, options.seed, most=_MOST_HELD_OUT)
        out.mkdir(parents=True, exist_ok=True)
        write_pairs(out / "pairs.jsonl.gz", (split.train.pair(link) for link in range(len(split.train))))
    show.report(f"{len(documents):,} documents, {len(pairs):,} pairs, {len(split.held_out):,} of them held out.")
    choosing, reporting = split_held_out(_held_out_queries(split.train, split.held_out, options.among, options.seed))
    with timer.stage("training"):
        model = run_recipe(
            recipe, out, name=name, show=show, judged=[_reduce_documents(choosing, options.curve_documents)]
        )
    # a resumed run adds the time of its earlier calls
    timer.seconds["training"] = max(timer.seconds["training"], read_curve(out)[-1]["seconds"])
    with timer.stage("comparing"):
        sets = [reporting, *([JudgedQueries.of(judgements, len(judgements.ids))] if judgements else [])]
        encoders, compared = _compare_with_start(options.start, model, sets, show)
    add_start_difference(compared)
    write_report(
        out,
        {
            "corpus": {"name": find_corpus_file(corpus).parent.name or corpus.name, "documents": len(documents)},
            "pairs": pairs.counts(),
            "held_out": len(split.held_out),
            "chosen_by": len(choosing.queries),
            "start": options.start,
            "model": str(model),
            "steps": recipe.steps,
            "batch": recipe.batch,
            "best_step": (read_best_evaluation(out) or {"step": 0})["step"],
            "teachers": ", ".join(
                " ".join(filter(None, (kind, title, f"{weight:g}"))) for kind, title, weight in options.teachers
            ),
            "seconds": timer.seconds,
            "machine": f"{multiprocessing.cpu_count()} cores of {cpu_name()}",
            "load_average": [round(load, 2) for load in os.getloadavg()],
            "versions": {package: version(package) for package in RECORDED_PACKAGES},
            "recipe": json.loads(recipe.model_dump_json()),
        },
        compared,
        read_curve(out),
        encoders,
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


def _held_out_queries(train: PairSet, held_out: PairSet, among: int, seed: int) -> JudgedQueries:
    """Return the held-out queries, to be ranked among their own passages and the training passages."""
    own = JudgedQueries.held_out(held_out)
    known = set(own.documents)
    others = [text for text in train.passages if text not in known]
    drawn = np.random.default_rng(seed).permutation(len(others))[: max(0, among - len(own.documents))]
    documents = own.documents + [others[position] for position in np.sort(drawn)]
    return JudgedQueries(own.name, documents, own.queries, own.grades)


def split_held_out(judged: JudgedQueries) -> tuple[JudgedQueries, JudgedQueries]:
    """Split the held-out queries: the first half chooses the best checkpoint, the second is reported.

    The best of several checkpoints by the reported queries would look better than the start by chance. A passage's
    queries stay together, unless all queries have the same passage.
    """
    firsts = [min(grades) for grades in judged.grades]
    places = {first: number % 2 for number, first in enumerate(sorted(set(firsts)))}
    sides = [places[first] for first in firsts] if len(places) > 1 else [number % 2 for number in range(len(firsts))]
    if len(set(sides)) < 2:
        return judged, judged
    choosing, reporting = (
        replace(
            judged,
            queries=[query for query, query_side in zip(judged.queries, sides, strict=True) if query_side == side],
            grades=[grades for grades, query_side in zip(judged.grades, sides, strict=True) if query_side == side],
        )
        for side in (0, 1)
    )
    return choosing, reporting


def _reduce_documents(judged: JudgedQueries, documents: int) -> JudgedQueries:
    """Keep the held-out passages, which come first, and fewer others, for the learning curve."""
    needed = 1 + max((place for grades in judged.grades for place in grades), default=0)
    return JudgedQueries(judged.name, judged.documents[: max(documents, needed)], judged.queries, judged.grades)


def _compare_with_start(
    start: str, model: Path, sets: Sequence[JudgedQueries], show: ProgressReporter
) -> tuple[dict[str, ServedVectors], dict[str, dict[str, Any]]]:
    """Compare both encoders as they are served, on the held-out queries and, if given, on the judged collection."""
    compared: dict[str, dict[str, Any]] = {}
    for judged in sets:
        encoders: dict[str, ServedVectors] = {}
        for title, directory in ((OLD, start), (NEW, str(model))):
            encoders[title] = encode_as_served(
                directory, judged.documents, _stage_progress(show, f"{judged.name} by the {title} encoder")
            )
        compared[judged.name] = compare_encoders(judged, encoders)
    return encoders, compared


def _stage_progress(show: ProgressReporter, title: str) -> Callable[[int, int], None]:
    def done(count: int, total: int) -> None:
        show.step(title, count, total)

    return done


class _StageTimer:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)
