"""From a recipe to what a run learns from: pairs, teachers' vectors, hard negatives, IDF, what is evaluated on.

Everything that takes long is kept in a directory under a name that says what it is made of, so a run that was stopped,
or the next variant of an ablation, finds it there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock

from models.dense.opening import open_dense
from models.export.collection import read_collection
from models.export.package import excluded_pieces
from models.export.reopen import reopen
from models.tokenising import Pieces
from models.training.architecture import build_encoder
from models.training.evaluation import Judged
from models.training.filtering import consistent
from models.training.idf import passage_idf
from models.training.mining import MiningRule, candidate_lists, mine
from models.training.mixing import PairFile, read_mixture
from models.training.pairs import PairSet, Rows, split
from models.training.ranking import Candidates, VectorCandidates
from models.training.recipe import TeacherChoice, TrainingRecipe
from models.training.run import OPENED, Material
from models.training.show import Show
from models.training.starting_point import starting_point
from models.training.teachers.bm25 import Bm25Teacher, WordTokens
from models.training.teachers.ensemble import Ensemble
from models.training.teachers.sparse import SparseTeacher
from models.training.vectors import Teacher, TeacherVectors, teacher_vectors
from services.errors import ConfigurationError
from services.machine.directories import DirectorySettings, cache_dir
from services.manifest import MANIFEST, WEIGHTS_ROOT, as_path, read_manifest

# More held-out pairs make an evaluation longer, not surer than the judged collections beside it.
_MOST_HELD_OUT = 500
# What a dense teacher reads of a text: passages to train on are short, and twice as long is three times the work.
TEACHER_PIECES = 256
# What an index of ours, that somebody else knows how to ask, has for the queries of a set.
IndexSource = Callable[[PairSet], Candidates]


def opened_start(start: str, out: Path) -> str:
    """A start that training can read: an exported encoder (by name or directory) is reopened into OUT/start."""
    for directory in (WEIGHTS_ROOT / start, as_path(start)):
        if (directory / MANIFEST).is_file() and not (directory / "model.safetensors").is_file():
            # by its fingerprint: another start in the same directory is another run
            made = out / f"{OPENED}{read_manifest(directory).fingerprint}"
            out.mkdir(parents=True, exist_ok=True)
            with FileLock(out / "start.lock"):
                if not made.is_dir():
                    part = made.with_name(f"{made.name}.part")
                    reopen(directory, part).replace(made)
            return str(made)
    return start


def prepare(
    recipe: TrainingRecipe,
    out: Path,
    show: Show,
    *,
    vectors: Path | None = None,
    index: IndexSource | None = None,
    judged: Sequence[Judged] = (),
) -> Material:
    """Reads and computes everything of a recipe; `vectors` is where teachers' vectors are kept (OUT/vectors).

    `index` gives the candidates of an index of ours, for hard negatives.

    Raises InvalidInput and ConfigurationError: those of reading pairs, of the teachers, `nothing_to_evaluate` without
    collections and held-out pairs.
    """
    kept = vectors or out / "vectors"
    # First: what cannot be started from, or not by this recipe, shall not cost hours of teachers.
    start = starting_point(recipe.start)
    build_encoder(recipe.start, recipe.encoder, np.ones(max(start.pieces.values()) + 1, dtype=np.float32))
    mixture = read_mixture([PairFile(one.path, weight=one.weight, cap=one.cap) for one in recipe.pairs], recipe.seed)
    for report in mixture.reports:
        if report.refused:
            refused = f"{sum(report.refused.values()):,} of {report.lines:,} lines left out"
            show.say(f"{report.name}: {refused}: {'; '.join(report.examples)}")
    pairs = mixture.pairs
    judged = [*judged, *(Judged.of(read_collection(one), recipe.evaluate_documents) for one in recipe.collections)]
    if recipe.held_out:
        parts = split(pairs, recipe.held_out, recipe.seed, most=_MOST_HELD_OUT)
        pairs = parts.train
        judged.append(Judged.held_out(parts.held_out))
    if not judged:
        raise ConfigurationError(
            "nothing_to_evaluate", "A run needs something to be judged by: give collections, or held_out above 0."
        )
    show.say(f"{len(pairs):,} pairs to train on: " + ", ".join(f"{name} {n:,}" for name, n in pairs.counts().items()))
    found = [_vectors(choice, pairs, kept, show) for choice in recipe.teachers]
    total = sum(choice.weight for choice in recipe.teachers)
    weights = [choice.weight / total for choice in recipe.teachers]
    ensemble = Ensemble([one for _, one in found], weights, recipe.distillation_scale) if found else None
    pairs = _consistent(recipe, pairs, found, show)
    idf = passage_idf(Pieces.load(start.directory / "tokenizer.json"), pairs.passages, excluded_pieces(start.pieces))
    negatives = _negatives(recipe, pairs, found, kept, show, index)
    order = replace(mixture, pairs=pairs).cycle(recipe.seed)
    reported = [Judged.of(read_collection(one), recipe.evaluate_documents) for one in recipe.reported]
    return Material(pairs, order, negatives, ensemble, idf, judged, reported)


def _vectors(choice: TeacherChoice, pairs: PairSet, kept: Path, show: Show) -> tuple[Teacher, TeacherVectors]:
    teacher: Teacher
    if choice.kind == "dense":
        teacher = open_dense(choice.name, cache_dir(DirectorySettings.read()), show.say, max_pieces=TEACHER_PIECES)
    elif choice.kind == "sparse":
        teacher = SparseTeacher(choice.name)
    else:
        teacher = Bm25Teacher(pairs.passages, WordTokens())

    def done(side: str, rows: int, total: int) -> None:
        show.step(f"Teacher {teacher.name}, {side}", rows, total)

    return teacher, teacher_vectors(teacher, pairs, kept, done)


def _consistent(
    recipe: TrainingRecipe, pairs: PairSet, found: Sequence[tuple[Teacher, TeacherVectors]], show: Show
) -> PairSet:
    """Drops links and keeps the texts: the teachers' rows still belong to them."""
    rule = recipe.consistency
    if rule is None:
        return pairs
    kept = consistent(
        pairs,
        [vectors for _, vectors in found],
        [choice.weight for choice in recipe.teachers],
        rule.within,
        sample=rule.sample,
        seed=recipe.seed,
        done=partial(_told, show, "Consistency", len(pairs)),
    )
    show.say(
        f"{int(kept.links.sum()):,} of {len(pairs):,} pairs are consistent: "
        + ", ".join(f"{name} {some:,} of {count:,}" for name, (some, count) in kept.by_origin.items())
    )
    return replace(
        pairs,
        query_rows=pairs.query_rows[kept.links],
        passage_rows=pairs.passage_rows[kept.links],
        origin_rows=pairs.origin_rows[kept.links],
    )


def _negatives(
    recipe: TrainingRecipe,
    pairs: PairSet,
    found: Sequence[tuple[Teacher, TeacherVectors]],
    kept: Path,
    show: Show,
    index: IndexSource | None,
) -> Rows | None:
    rule = recipe.negatives
    if not rule.sources or not rule.count:
        return None
    lists = []
    for source in rule.sources:
        candidates = _candidates(source, recipe, pairs, found, kept, show, index)
        step: Callable[[int], None] = partial(_told, show, f"Hard negatives from {candidates.name}", len(pairs.queries))
        lists.append(candidate_lists(candidates, pairs, rule.depth, kept, step))
    mining = MiningRule(rule.count, rule.depth, rule.skip, rule.ceiling, recipe.seed)
    made = mine(pairs, lists, mining, found[0][1] if found else None)
    show.say("Hard negatives: " + ", ".join(f"{name} {count:,}" for name, count in made.counts.items()))
    return made.rows


def _told(show: Show, title: str, total: int, done: int) -> None:
    show.step(title, done, total)


def _candidates(
    source: str,
    recipe: TrainingRecipe,
    pairs: PairSet,
    found: Sequence[tuple[Teacher, TeacherVectors]],
    kept: Path,
    show: Show,
    index: IndexSource | None,
) -> Candidates:
    if source == "index":
        if index is None:
            raise ConfigurationError("bad_recipe", "negatives.sources names an index, and none can be asked here.")
        return index(pairs)
    for choice, (teacher, vectors) in zip(recipe.teachers, found, strict=True):
        if choice.kind == source:
            return VectorCandidates(vectors, teacher.fingerprint)
    teacher, vectors = _vectors(TeacherChoice(kind="bm25"), pairs, kept, show)
    return VectorCandidates(vectors, teacher.fingerprint)
