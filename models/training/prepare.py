"""Preparation of a run: pairs, teachers' vectors, hard negatives, IDF and collections for evaluation, from a recipe.

`prepare_material` keeps slow results in a directory, under names that hold their fingerprints. A stopped run, or the
next variant of an ablation, finds them there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock

from models.dense import open_dense_encoder
from models.download import MessageReporter, fetch_model
from models.encoder import PieceTokeniser
from models.export.collection import read_collection
from models.export.package import excluded_piece_ids
from models.export.reopen import reopen_checkpoint
from models.idf import passage_idf
from models.judged_queries import JudgedQueries
from models.progress import ProgressReporter
from models.reranking import CrossEncoderScorer
from models.training.architecture import build_encoder, read_starting_point
from models.training.batches import MixtureFile, read_mixture
from models.training.consistency import filter_consistent
from models.training.mining import (
    CandidateSource,
    MiningRule,
    OpenIndexCandidates,
    VectorCandidates,
    load_candidate_lists,
    mine_negatives,
)
from models.training.pairs import PairSet, Rows, split_pairs
from models.training.recipe import EncoderRecipe, TeacherChoice, TrainingRecipe
from models.training.run_directory import START_PREFIX
from models.training.scored_candidates import ScoredCandidates, join_score_files, score_with_cross_encoder
from models.training.teacher_vectors import Teacher, TeacherVectors, load_teacher_vectors, teacher_name
from models.training.teachers import (
    Bm25Teacher,
    SiameseTeacher,
    SparseTeacher,
    TeacherEnsemble,
    WordTokeniser,
    expand_texts,
)
from models.training.train import TrainingMaterial
from services.directories import DirectorySettings, replace_directory, resolve_cache_directory
from services.encoders.catalogue import load_fetchable_models
from services.encoders.manifest import MANIFEST_FILE, WEIGHTS_ROOT, expand_path, read_manifest
from services.errors import ConfigurationError

# More held-out pairs make an evaluation slower, but no more certain than the judged collections beside it.
_MOST_HELD_OUT = 500
# Longest input of a dense teacher: training passages are short, and twice the length takes three times the work.
TEACHER_PIECES = 256


def prepare_material(
    recipe: TrainingRecipe,
    out: Path,
    show: ProgressReporter,
    *,
    vectors: Path | None = None,
    index: OpenIndexCandidates | None = None,
    judged: Sequence[JudgedQueries] = (),
) -> TrainingMaterial:
    """Read and compute all material of a recipe. `vectors` is the directory of teachers' vectors (default:
    OUT/vectors).

    `index` opens a sparsewell index as a source of hard negatives.

    Raises InvalidInput and ConfigurationError: those of reading pairs and of the teachers, and `nothing_to_evaluate`
    without collections and held-out pairs.
    """
    vectors_directory = vectors or out / "vectors"
    # A start that cannot be loaded with this recipe must fail here, not after hours of teachers.
    start = read_starting_point(recipe.start)
    build_encoder(recipe.start, recipe.encoder, np.ones(max(start.pieces.values()) + 1, dtype=np.float32))
    mixture = read_mixture(
        [MixtureFile(source.path, weight=source.weight, cap=source.cap) for source in recipe.pairs], recipe.seed
    )
    for report in mixture.reports:
        if report.refused:
            refused = f"{sum(report.refused.values()):,} of {report.lines:,} lines left out"
            show.report(f"{report.name}: {refused}: {'; '.join(report.examples)}")
    pairs = mixture.pairs
    judged = [
        *judged,
        *(JudgedQueries.of(read_collection(path), recipe.evaluate_documents) for path in recipe.collections),
    ]
    if recipe.held_out:
        split = split_pairs(pairs, recipe.held_out, recipe.seed, most=_MOST_HELD_OUT)
        pairs = split.train
        judged.append(JudgedQueries.held_out(split.held_out))
    if not judged:
        raise ConfigurationError(
            "nothing_to_evaluate", "A run needs queries for evaluation: set collections, or held_out above 0."
        )
    show.report(
        f"{len(pairs):,} pairs to train on: " + ", ".join(f"{name} {n:,}" for name, n in pairs.counts().items())
    )
    files = {at: Path(choice.name) for at, choice in enumerate(recipe.teachers) if choice.kind == "scores"}
    pairs, score_files, score_reports = join_score_files(pairs, files.values())
    for report in score_reports:
        show.report(
            f"{report.name}: scores of {report.taken:,} of {report.lines:,} lines"
            + (f"; left out: {'; '.join(report.examples)}" if report.examples else "")
        )
    vectors_of = {
        at: _load_vectors(choice, pairs, vectors_directory, show)
        for at, choice in enumerate(recipe.teachers)
        if choice.scores_any_passage
    }
    prepared = _PreparedTeachers(vectors_of, dict(zip(files, score_files, strict=True)))
    pairs = _drop_inconsistent(recipe, pairs, prepared, show)
    idf = passage_idf(
        PieceTokeniser.load(start.directory / "tokenizer.json"), pairs.passages, excluded_piece_ids(start.pieces)
    )
    negatives = _mine_recipe_negatives(recipe, pairs, prepared, vectors_directory, show, index)
    ensemble = _join_teachers(recipe, pairs, prepared, negatives, vectors_directory, show) if recipe.distils else None
    order = replace(mixture, pairs=pairs).cycle(recipe.seed)
    reported = [JudgedQueries.of(read_collection(path), recipe.evaluate_documents) for path in recipe.reported]
    material = TrainingMaterial(pairs, order, negatives, ensemble, idf, judged, reported)
    return _expand_material(recipe.encoder, material, vectors_directory, show) if recipe.encoder.expand_by else material


def _expand_material(
    recipe: EncoderRecipe, material: TrainingMaterial, directory: Path, show: ProgressReporter
) -> TrainingMaterial:
    """Expand every passage and document by the recipe's sparse encoder. Teachers and BM25 have read them unchanged."""
    teacher = SparseTeacher(recipe.expand_by)

    def expanded(texts: Sequence[str]) -> list[str]:
        return expand_texts(
            teacher,
            texts,
            recipe.expand_words,
            directory,
            lambda side, rows, total: show.step(f"Expansion by {teacher.name}", rows, total),
        )

    return replace(
        material,
        pairs=replace(material.pairs, passages=expanded(material.pairs.passages)),
        judged=[judged.rewritten(expanded(judged.documents)) for judged in material.judged],
        reported=[judged.rewritten(expanded(judged.documents)) for judged in material.reported],
    )


def open_start(start: str, out: Path, report: MessageReporter) -> str:
    """Return a start that training can read.

    An exported encoder (a name or directory) is reopened into OUT/start-FINGERPRINT. A model that
    `sparsewell train teachers` lists is fetched and copied to OUT/start-NAME.
    """
    if start in load_fetchable_models() and not expand_path(start).is_dir():
        fetched = fetch_model(start, resolve_cache_directory(DirectorySettings.read()), report)
        # The run may go on elsewhere, where the cache has another path.
        return _make_start(out, start, lambda fresh: shutil.copytree(fetched, fresh, dirs_exist_ok=True))
    for directory in (WEIGHTS_ROOT / start, expand_path(start)):
        if (directory / MANIFEST_FILE).is_file() and not (directory / "model.safetensors").is_file():
            # named by its fingerprint: another start in the same directory is another run
            return _make_start(out, read_manifest(directory).fingerprint, partial(reopen_checkpoint, directory))
    return start


def _make_start(out: Path, name: str, make: Callable[[Path], object]) -> str:
    """Return OUT/start-NAME, which `make` fills unless it exists."""
    target = out / f"{START_PREFIX}{name}"
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / "start.lock"):
        if not target.is_dir():
            with replace_directory(target) as fresh:
                make(fresh)
    return str(target)


@dataclass(frozen=True)
class _PreparedTeachers:
    """Teachers that need no hard negatives, by their position in the recipe."""

    vectors: dict[int, tuple[Teacher, TeacherVectors]]
    scores: dict[int, ScoredCandidates]


def _load_vectors(
    choice: TeacherChoice, pairs: PairSet, directory: Path, show: ProgressReporter
) -> tuple[Teacher, TeacherVectors]:
    teacher: Teacher
    if choice.kind == "dense":
        teacher = open_dense_encoder(
            choice.name, resolve_cache_directory(DirectorySettings.read()), show.report, max_pieces=TEACHER_PIECES
        )
    elif choice.kind == "sparse":
        teacher = SparseTeacher(choice.name)
    elif choice.kind == "siamese":
        teacher = SiameseTeacher(choice.name)
    else:
        teacher = Bm25Teacher(pairs.passages, WordTokeniser())

    def done(side: str, rows: int, total: int) -> None:
        show.step(f"Teacher {teacher.name}, {side}", rows, total)

    return teacher, load_teacher_vectors(teacher, pairs, directory, done)


def _join_teachers(
    recipe: TrainingRecipe,
    pairs: PairSet,
    prepared: _PreparedTeachers,
    negatives: Rows | None,
    directory: Path,
    show: ProgressReporter,
) -> TeacherEnsemble:
    """Return the ensemble, in the order of the recipe. A cross-encoder scores the hard negatives here."""
    joined: list[TeacherVectors] = []
    for at, choice in enumerate(recipe.teachers):
        if at in prepared.vectors:
            joined.append(prepared.vectors[at][1])
        elif at in prepared.scores:
            joined.append(prepared.scores[at])
        elif negatives is not None:
            name = teacher_name(choice.name)
            done = partial(_report_progress, show, f"Teacher {name}", len(pairs))
            joined.append(
                score_with_cross_encoder(name, CrossEncoderScorer(choice.name), pairs, negatives, directory, done)
            )
    total = sum(choice.weight for choice in recipe.teachers)
    return TeacherEnsemble(joined, [choice.weight / total for choice in recipe.teachers], recipe.distillation_scale)


def _drop_inconsistent(
    recipe: TrainingRecipe, pairs: PairSet, prepared: _PreparedTeachers, show: ProgressReporter
) -> PairSet:
    """Drop links and keep the texts, because the teachers' rows count them."""
    filter_recipe = recipe.consistency
    if filter_recipe is None:
        return pairs
    kept = filter_consistent(
        pairs,
        [vectors for _, vectors in prepared.vectors.values()],
        [recipe.teachers[at].weight for at in prepared.vectors],
        filter_recipe.within,
        sample=filter_recipe.sample,
        seed=recipe.seed,
        done=partial(_report_progress, show, "Consistency", len(pairs)),
    )
    show.report(
        f"{int(kept.links.sum()):,} of {len(pairs):,} pairs are consistent: "
        + ", ".join(f"{name} {count:,} of {total:,}" for name, (count, total) in kept.by_origin.items())
    )
    return replace(
        pairs,
        query_rows=pairs.query_rows[kept.links],
        passage_rows=pairs.passage_rows[kept.links],
        origin_rows=pairs.origin_rows[kept.links],
    )


def _mine_recipe_negatives(
    recipe: TrainingRecipe,
    pairs: PairSet,
    prepared: _PreparedTeachers,
    directory: Path,
    show: ProgressReporter,
    index: OpenIndexCandidates | None,
) -> Rows | None:
    rule = recipe.negatives
    if not recipe.mines:
        return None
    lists = []
    for source in rule.sources:
        candidates = _open_candidates(source, recipe, pairs, prepared, directory, show, index)
        step: Callable[[int], None] = partial(
            _report_progress, show, f"Hard negatives from {candidates.name}", len(pairs.queries)
        )
        lists.append(load_candidate_lists(candidates, pairs, rule.depth, directory, step))
    mining = MiningRule(rule.count, rule.depth, rule.skip, rule.ceiling, recipe.seed)
    mined = mine_negatives(pairs, lists, mining, next((found for _, found in prepared.vectors.values()), None))
    show.report("Hard negatives: " + ", ".join(f"{name} {count:,}" for name, count in mined.counts.items()))
    return mined.rows


def _open_candidates(
    source: str,
    recipe: TrainingRecipe,
    pairs: PairSet,
    prepared: _PreparedTeachers,
    directory: Path,
    show: ProgressReporter,
    index: OpenIndexCandidates | None,
) -> CandidateSource:
    if source == "index":
        if index is None:
            raise ConfigurationError(
                "bad_recipe", "negatives.sources names an index, and this command cannot search one."
            )
        return index(pairs)
    for at, choice in enumerate(recipe.teachers):
        if choice.kind == source == "scores":
            return prepared.scores[at]
        if choice.kind == source:
            teacher, vectors = prepared.vectors[at]
            return VectorCandidates(vectors, teacher.fingerprint)
    teacher, vectors = _load_vectors(TeacherChoice(kind="bm25"), pairs, directory, show)
    return VectorCandidates(vectors, teacher.fingerprint)


def _report_progress(show: ProgressReporter, title: str, total: int, done: int) -> None:
    show.step(title, done, total)
