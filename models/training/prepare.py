"""From a recipe to what a run learns from: pairs, teachers' vectors, hard negatives, IDF, what is evaluated on.

Everything that takes long is kept in a directory under a name that says what it is made of, so a run that was stopped,
or the next variant of an ablation, finds it there.

Candidates for mining out of an index of ours, in any mode: what its searches find now must be told apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from models.dense import open_dense_encoder
from models.encoder import PieceTokeniser
from models.export.collection import read_collection
from models.export.package import excluded_piece_ids
from models.export.reopen import reopen_checkpoint
from models.training.architecture import build_encoder, read_starting_point
from models.training.batches import MixtureFile, read_mixture
from models.training.evaluation import JudgedQueries
from models.training.idf import passage_idf
from models.training.mining import (
    NO_PASSAGE,
    CandidateSource,
    MiningRule,
    VectorCandidates,
    filter_consistent,
    load_candidate_lists,
    mine_negatives,
)
from models.training.pairs import PairSet, Rows, split_pairs
from models.training.recipe import TeacherChoice, TrainingRecipe
from models.training.teacher_vectors import Teacher, TeacherVectors, load_teacher_vectors
from models.training.teachers import Bm25Teacher, SparseTeacher, TeacherEnsemble, WordTokeniser
from models.training.train import START_PREFIX, ProgressReporter, TrainingMaterial
from services.directories import DirectorySettings, resolve_cache_directory
from services.encoders.manifest import MANIFEST_FILE, WEIGHTS_ROOT, expand_path, read_manifest
from services.errors import ConfigurationError

SearchPassages = Callable[[Sequence[str], int], Sequence[Sequence[str]]]


def passage_id(text: str) -> str:
    """The id under which a passage of a pair set is kept in an index, so that hits can be told to be its passages."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def passage_documents(pairs: PairSet) -> Iterator[dict[str, str]]:
    """The documents to load into an index that is to give candidates."""
    for text in pairs.passages:
        yield {"id": passage_id(text), "text": text}


class IndexCandidates:
    """Lists from an index that holds `passage_documents`; hits that are no passage of the set are passed over.

    `search` asks several queries and gives the ids of at most `depth` hits of each, best first. `fingerprint` must
    change when the index would answer otherwise.
    """

    def __init__(self, pairs: PairSet, search: SearchPassages, *, name: str, fingerprint: str) -> None:
        self.name, self.fingerprint = name, fingerprint
        self._queries, self._search = pairs.queries, search
        self._rows: Mapping[str, int] = {passage_id(text): row for row, text in enumerate(pairs.passages)}

    def best(self, query_rows: NDArray[np.integer], depth: int) -> Rows:
        found = np.full((query_rows.size, depth), NO_PASSAGE, dtype=np.int32)
        answers = self._search([self._queries[row] for row in query_rows.tolist()], depth)
        for place, ids in enumerate(answers):
            rows = [self._rows[one] for one in ids if one in self._rows][:depth]
            found[place, : len(rows)] = rows
        return found


# More held-out pairs make an evaluation longer, not surer than the judged collections beside it.
_MOST_HELD_OUT = 500
# What a dense teacher reads of a text: passages to train on are short, and twice as long is three times the work.
TEACHER_PIECES = 256
# What an index of ours, that somebody else knows how to ask, has for the queries of a set.
OpenIndexCandidates = Callable[[PairSet], CandidateSource]


def open_start(start: str, out: Path) -> str:
    """A start that training can read: an exported encoder (by name or directory) is reopened into OUT/start."""
    for directory in (WEIGHTS_ROOT / start, expand_path(start)):
        if (directory / MANIFEST_FILE).is_file() and not (directory / "model.safetensors").is_file():
            # by its fingerprint: another start in the same directory is another run
            made = out / f"{START_PREFIX}{read_manifest(directory).fingerprint}"
            out.mkdir(parents=True, exist_ok=True)
            with FileLock(out / "start.lock"):
                if not made.is_dir():
                    part = made.with_name(f"{made.name}.part")
                    reopen_checkpoint(directory, part).replace(made)
            return str(made)
    return start


def prepare_material(
    recipe: TrainingRecipe,
    out: Path,
    show: ProgressReporter,
    *,
    vectors: Path | None = None,
    index: OpenIndexCandidates | None = None,
    judged: Sequence[JudgedQueries] = (),
) -> TrainingMaterial:
    """Reads and computes everything of a recipe; `vectors` is where teachers' vectors are kept (OUT/vectors).

    `index` gives the candidates of an index of ours, for hard negatives.

    Raises InvalidInput and ConfigurationError: those of reading pairs, of the teachers, `nothing_to_evaluate` without
    collections and held-out pairs.
    """
    kept = vectors or out / "vectors"
    # First: what cannot be started from, or not by this recipe, shall not cost hours of teachers.
    start = read_starting_point(recipe.start)
    build_encoder(recipe.start, recipe.encoder, np.ones(max(start.pieces.values()) + 1, dtype=np.float32))
    mixture = read_mixture([MixtureFile(one.path, weight=one.weight, cap=one.cap) for one in recipe.pairs], recipe.seed)
    for report in mixture.reports:
        if report.refused:
            refused = f"{sum(report.refused.values()):,} of {report.lines:,} lines left out"
            show.say(f"{report.name}: {refused}: {'; '.join(report.examples)}")
    pairs = mixture.pairs
    judged = [
        *judged,
        *(JudgedQueries.of(read_collection(one), recipe.evaluate_documents) for one in recipe.collections),
    ]
    if recipe.held_out:
        parts = split_pairs(pairs, recipe.held_out, recipe.seed, most=_MOST_HELD_OUT)
        pairs = parts.train
        judged.append(JudgedQueries.held_out(parts.held_out))
    if not judged:
        raise ConfigurationError(
            "nothing_to_evaluate", "A run needs something to be judged by: give collections, or held_out above 0."
        )
    show.say(f"{len(pairs):,} pairs to train on: " + ", ".join(f"{name} {n:,}" for name, n in pairs.counts().items()))
    found = [_load_vectors(choice, pairs, kept, show) for choice in recipe.teachers]
    total = sum(choice.weight for choice in recipe.teachers)
    weights = [choice.weight / total for choice in recipe.teachers]
    ensemble = TeacherEnsemble([one for _, one in found], weights, recipe.distillation_scale) if found else None
    pairs = _drop_inconsistent(recipe, pairs, found, show)
    idf = passage_idf(
        PieceTokeniser.load(start.directory / "tokenizer.json"), pairs.passages, excluded_piece_ids(start.pieces)
    )
    negatives = _mine_recipe_negatives(recipe, pairs, found, kept, show, index)
    order = replace(mixture, pairs=pairs).cycle(recipe.seed)
    reported = [JudgedQueries.of(read_collection(one), recipe.evaluate_documents) for one in recipe.reported]
    return TrainingMaterial(pairs, order, negatives, ensemble, idf, judged, reported)


def _load_vectors(
    choice: TeacherChoice, pairs: PairSet, kept: Path, show: ProgressReporter
) -> tuple[Teacher, TeacherVectors]:
    teacher: Teacher
    if choice.kind == "dense":
        teacher = open_dense_encoder(
            choice.name, resolve_cache_directory(DirectorySettings.read()), show.say, max_pieces=TEACHER_PIECES
        )
    elif choice.kind == "sparse":
        teacher = SparseTeacher(choice.name)
    else:
        teacher = Bm25Teacher(pairs.passages, WordTokeniser())

    def done(side: str, rows: int, total: int) -> None:
        show.step(f"Teacher {teacher.name}, {side}", rows, total)

    return teacher, load_teacher_vectors(teacher, pairs, kept, done)


def _drop_inconsistent(
    recipe: TrainingRecipe, pairs: PairSet, found: Sequence[tuple[Teacher, TeacherVectors]], show: ProgressReporter
) -> PairSet:
    """Drops links and keeps the texts: the teachers' rows still belong to them."""
    rule = recipe.consistency
    if rule is None:
        return pairs
    kept = filter_consistent(
        pairs,
        [vectors for _, vectors in found],
        [choice.weight for choice in recipe.teachers],
        rule.within,
        sample=rule.sample,
        seed=recipe.seed,
        done=partial(_report_progress, show, "Consistency", len(pairs)),
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


def _mine_recipe_negatives(
    recipe: TrainingRecipe,
    pairs: PairSet,
    found: Sequence[tuple[Teacher, TeacherVectors]],
    kept: Path,
    show: ProgressReporter,
    index: OpenIndexCandidates | None,
) -> Rows | None:
    rule = recipe.negatives
    if not rule.sources or not rule.count:
        return None
    lists = []
    for source in rule.sources:
        candidates = _open_candidates(source, recipe, pairs, found, kept, show, index)
        step: Callable[[int], None] = partial(
            _report_progress, show, f"Hard negatives from {candidates.name}", len(pairs.queries)
        )
        lists.append(load_candidate_lists(candidates, pairs, rule.depth, kept, step))
    mining = MiningRule(rule.count, rule.depth, rule.skip, rule.ceiling, recipe.seed)
    made = mine_negatives(pairs, lists, mining, found[0][1] if found else None)
    show.say("Hard negatives: " + ", ".join(f"{name} {count:,}" for name, count in made.counts.items()))
    return made.rows


def _report_progress(show: ProgressReporter, title: str, total: int, done: int) -> None:
    show.step(title, done, total)


def _open_candidates(
    source: str,
    recipe: TrainingRecipe,
    pairs: PairSet,
    found: Sequence[tuple[Teacher, TeacherVectors]],
    kept: Path,
    show: ProgressReporter,
    index: OpenIndexCandidates | None,
) -> CandidateSource:
    if source == "index":
        if index is None:
            raise ConfigurationError("bad_recipe", "negatives.sources names an index, and none can be asked here.")
        return index(pairs)
    for choice, (teacher, vectors) in zip(recipe.teachers, found, strict=True):
        if choice.kind == source:
            return VectorCandidates(vectors, teacher.fingerprint)
    teacher, vectors = _load_vectors(TeacherChoice(kind="bm25"), pairs, kept, show)
    return VectorCandidates(vectors, teacher.fingerprint)
