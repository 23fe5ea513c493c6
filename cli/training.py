"""Inputs of the training pipelines that only the commands know.

`make_index_candidates` finds hard negatives in an index through the API, `make_question_generator` generates questions
with a local language model, and `read_chapter_recipe` reads the recipe of `sparsewell train chapters`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import orjson
from pydantic import ValidationError

from cli.relevance.live import LiveIndex
from models.chapters.training_data import ChapterRecipe
from models.training.mining import IndexCandidates, VectorCandidates
from models.training.own.questions import CausalQuestionGenerator, check_round_trip, generate_pairs
from models.training.pairs import PairSet
from models.training.teacher_vectors import load_teacher_vectors
from models.training.teachers import SparseTeacher
from services.errors import ConfigurationError

if TYPE_CHECKING:
    from models.progress import ProgressReporter

# A question that does not find its passage among the first three hits is too general to train on.
_MAX_RANK = 3


def make_index_candidates(client: httpx.Client, index: str, mode: str, pairs: PairSet) -> IndexCandidates:
    """Return ranked lists of the passages of `pairs`, which the index holds as `passage_documents` writes them.

    The fingerprint changes with the index's generation, encoder and number of documents by state. A query that the API
    refuses as invalid (too long, empty) has no candidates. Raises NotFound, BackendUnavailable, and InvalidInput for an
    unknown mode or more hits than the API returns.
    """
    live = LiveIndex(client, index)
    state = orjson.dumps([live.inspect(), mode], option=orjson.OPT_SORT_KEYS).decode()

    def search(texts: Sequence[str], depth: int) -> list[list[str]]:
        answers = live.ask({str(number): text for number, text in enumerate(texts)}, mode, depth)
        return [[document for document, _ in answers.rankings.get(str(number), [])] for number in range(len(texts))]

    return IndexCandidates(pairs, search, name=f"index-{mode}", fingerprint=state)


def make_question_generator(
    directory: Path, start: str, out: Path, show: ProgressReporter
) -> Callable[[PairSet], PairSet]:
    """Return a function that generates a question for each passage with the language model of `directory`.

    It keeps the questions for which the encoder `start` finds their passage among the first `_MAX_RANK` hits.
    """

    def generate(pairs: PairSet) -> PairSet:
        generator = CausalQuestionGenerator(directory)
        total = len(pairs.passages)
        generated = generate_pairs(
            pairs.passages, generator, out / "questions", lambda done: show.step("Questions", done, total)
        )
        teacher = SparseTeacher(start)
        vectors = load_teacher_vectors(teacher, generated, out / "vectors")
        kept = check_round_trip(generated, VectorCandidates(vectors, teacher.fingerprint), _MAX_RANK)
        show.report(f"{int(kept.sum()):,} of {len(generated):,} questions find their passage.")
        return generated.take(kept)

    return generate


def read_chapter_recipe(path: Path | None, steps: int | None) -> ChapterRecipe:
    """Read a recipe from a TOML file; `steps` overrides the file. Raises ConfigurationError (`bad_recipe`)."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8")) if path else {}
        return ChapterRecipe.model_validate(content | ({} if steps is None else {"steps": steps}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the recipe"
        raise ConfigurationError("bad_recipe", f"{path or 'The recipe'}: {where}: {first['msg']}.") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_recipe", f"{path} cannot be read as TOML: {error}.") from None
