"""`sparsewell train own`: an encoder for a corpus that has neither queries nor judgements."""

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
from models.export.machine import cpu_name
from models.training.curve import read_best, read_curve
from models.training.evaluation import Judged
from models.training.json_lines import ReadReport
from models.training.own.compare import Served, compare, served
from models.training.own.corpus import corpus_file, read_corpus
from models.training.own.make_pairs import PairOptions, own_pairs
from models.training.own.report import NEW, OLD, sureness, write_report
from models.training.packaging import PACKAGES, encoder_name
from models.training.pair_files import write_pairs
from models.training.pairs import PairSet, join, split
from models.training.recipe import TrainingRecipe, parse
from models.training.show import Show, Silent
from models.training.whole_run import run
from services.manifest import read_manifest, resolve

_MOST_HELD_OUT = 500
More = Callable[[PairSet], PairSet]


@dataclass(frozen=True)
class OwnOptions:
    """What can be chosen; the rest follows from the corpus and the start.

    `teachers` are (kind, name, weight); `judgements` is a judged collection in BEIR layout, used to report and never
    to choose. `more` adds pairs, generated questions for instance.
    """

    start: str
    teachers: Sequence[tuple[str, str, float]]
    steps: int = 300
    batch: int = 12
    learning_rate: float = 1e-4
    regulariser_weight: float = 0.001
    passage_pieces: int = 160
    judgements: Path | None = None
    # passages among which a held-out query looks for its own, and which the learning curve encodes each time
    among: int = 5000
    curve_documents: int = 600
    seed: int = 0
    pairs: PairOptions = field(default_factory=lambda: PairOptions(passage_words=100))
    more: More | None = None


def train_own(corpus: Path, out: Path, options: OwnOptions, *, name: str, show: Show | None = None) -> Path:
    """Makes pairs, trains from the start, compares on what was held out, reports. Returns the model directory.

    Raises InvalidInput (`no_documents`, `corpus_too_small`, `bad_split`) and what `models.training.whole_run.run` does.
    """
    show = show or Silent()
    clock = _Clock()
    encoder_name(name)
    # (all before pairs are made and anything is trained: that takes hours)
    recipe = _recipe(options, out)
    judgements = None if options.judgements is None else read_collection(options.judgements)
    with clock.stage("pairs"):
        report = ReadReport(str(corpus_file(corpus)))
        documents = list(read_corpus(corpus, report))
        if report.refused:
            refused = f"{sum(report.refused.values()):,} of {report.lines:,} lines left out"
            show.say(f"{refused}: {'; '.join(report.examples)}")
        pairs = own_pairs(documents, options.pairs)
        if options.more is not None:
            pairs = join([pairs, options.more(pairs)])
        parts = split(pairs, 0.1, options.seed, most=_MOST_HELD_OUT)
        out.mkdir(parents=True, exist_ok=True)
        write_pairs(out / "pairs.jsonl.gz", (parts.train.pair(link) for link in range(len(parts.train))))
    show.say(f"{len(documents):,} documents, {len(pairs):,} pairs, {len(parts.held_out):,} of them held out.")
    choosing, reporting = halves(_held_out(parts.train, parts.held_out, options.among, options.seed))
    with clock.stage("training"):
        made = run(recipe, out, name=name, show=show, judged=[_smaller(choosing, options.curve_documents)])
    # (of a run that was stopped, what its earlier parts took)
    clock.seconds["training"] = max(clock.seconds["training"], read_curve(out)[-1]["seconds"])
    with clock.stage("comparing"):
        sets = [reporting, *([Judged.of(judgements, len(judgements.ids))] if judgements else [])]
        encoders, compared = _compare(options.start, made, sets, show)
    sureness(compared)
    write_report(
        out,
        {
            "corpus": {"name": corpus_file(corpus).parent.name or corpus.name, "documents": len(documents)},
            "pairs": pairs.counts(),
            "held_out": len(parts.held_out),
            "chosen_by": len(choosing.queries),
            "start": options.start,
            "model": str(made),
            "steps": recipe.steps,
            "batch": recipe.batch,
            "best_step": (read_best(out) or {"step": 0})["step"],
            "teachers": ", ".join(" ".join(filter(None, (*one[:2], f"{one[2]:g}"))) for one in options.teachers),
            "seconds": clock.seconds,
            "machine": f"{multiprocessing.cpu_count()} cores of {cpu_name()}",
            "load_average": [round(one, 2) for one in os.getloadavg()],
            "versions": {package: version(package) for package in PACKAGES},
            "recipe": json.loads(recipe.model_dump_json()),
        },
        compared,
        read_curve(out),
        encoders,
    )
    show.say(f"The report is {out / 'report.md'}.")
    return made


def _recipe(options: OwnOptions, out: Path) -> TrainingRecipe:
    manifest = read_manifest(resolve(options.start))
    sources = [kind for kind in ("dense", "bm25") if any(one[0] == kind for one in options.teachers)]
    return parse(
        {
            "start": options.start,
            "pairs": [{"path": out / "pairs.jsonl.gz"}],
            "teachers": [{"kind": kind, "name": name, "weight": weight} for kind, name, weight in options.teachers],
            "encoder": {
                "activation": (manifest.model_extra or {}).get("activation", "log1p_relu"),
                "passage_pieces": min(options.passage_pieces, manifest.max_pieces),
            },
            "consistency": {"within": 10},
            # among random passages every teacher is right: what it knows shows among those that look alike
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


def _held_out(train: PairSet, held_out: PairSet, among: int, seed: int) -> Judged:
    """The held-out queries, to be answered among their own passages and those of training."""
    own = Judged.held_out(held_out)
    known = set(own.documents)
    others = [text for text in train.passages if text not in known]
    drawn = np.random.default_rng(seed).permutation(len(others))[: max(0, among - len(own.documents))]
    return Judged(own.name, own.documents + [others[place] for place in np.sort(drawn)], own.queries, own.grades)


def halves(judged: Judged) -> tuple[Judged, Judged]:
    """The held-out queries that choose the best checkpoint, and those that are reported: the best of several by the
    queries that are reported would look better than the start by chance. A passage's queries stay together, unless all
    ask for one."""
    firsts = [min(grades) for grades in judged.grades]
    places = {first: number % 2 for number, first in enumerate(sorted(set(firsts)))}
    sides = [places[first] for first in firsts] if len(places) > 1 else [number % 2 for number in range(len(firsts))]
    if len(set(sides)) < 2:
        return judged, judged
    choosing, reporting = (
        replace(
            judged,
            queries=[query for query, own in zip(judged.queries, sides, strict=True) if own == side],
            grades=[grades for grades, own in zip(judged.grades, sides, strict=True) if own == side],
        )
        for side in (0, 1)
    )
    return choosing, reporting


def _smaller(judged: Judged, documents: int) -> Judged:
    """For the curve: the held-out passages (they come first) and fewer others."""
    needed = 1 + max((place for grades in judged.grades for place in grades), default=0)
    return Judged(judged.name, judged.documents[: max(documents, needed)], judged.queries, judged.grades)


def _compare(
    start: str, made: Path, sets: Sequence[Judged], show: Show
) -> tuple[dict[str, Served], dict[str, dict[str, Any]]]:
    """Both encoders as they are served, on the held-out queries and on the judged collection where there is one."""
    compared: dict[str, dict[str, Any]] = {}
    for one in sets:
        encoders: dict[str, Served] = {}
        for title, directory in ((OLD, start), (NEW, str(made))):
            encoders[title] = served(directory, one.documents, _stage(show, f"{one.name} by the {title} encoder"))
        compared[one.name] = compare(one, encoders)
    return encoders, compared


def _stage(show: Show, title: str) -> Callable[[int, int], None]:
    def done(count: int, total: int) -> None:
        show.step(title, count, total)

    return done


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)
