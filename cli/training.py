"""Generated questions for `train own`: a local language model asks, and what leads back to its passage stays.

Candidates for mining hard negatives, searched in an index through the REST API.

The recipe of `sparsewell train chapters`: a TOML file and options, both may be missing.

A disk that is full, closed or away: one line instead of a traceback, whoever was writing.
"""

import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
from pydantic import ValidationError

from cli.relevance.live import LiveIndex
from models.training.chapter_data import ChapterRecipe
from models.training.mining import VectorCandidates
from models.training.own.questions import CausalQuestionGenerator, check_round_trip, generate_pairs
from models.training.pairs import PairSet
from models.training.prepare import IndexCandidates
from models.training.teacher_vectors import load_teacher_vectors
from models.training.teachers import SparseTeacher
from models.training.train import ProgressReporter
from services.errors import ConfigurationError


def make_index_candidates(client: httpx.Client, index: str, mode: str, pairs: PairSet) -> IndexCandidates:
    """Return ranked lists of the passages of `pairs`, which the index holds as `passage_documents` writes them.

    The fingerprint changes with the index's generation, encoder and number of documents by state. A query that the API
    refuses as invalid (too long, empty) has no candidates. Raises NotFound, BackendUnavailable, and InvalidInput for an
    unknown mode or more hits than the API returns.
    """
    live = LiveIndex(client, index)
    state = orjson.dumps([live.inspect(), mode], option=orjson.OPT_SORT_KEYS).decode()

    def search(texts: Sequence[str], depth: int) -> list[list[str]]:
        asked = live.ask({str(number): text for number, text in enumerate(texts)}, mode, depth)
        return [[one for one, _ in asked.rankings.get(str(number), [])] for number in range(len(texts))]

    return IndexCandidates(pairs, search, name=f"index-{mode}", fingerprint=state)


def read_chapter_recipe(path: Path | None, steps: int | None) -> ChapterRecipe:
    """`steps` wins over the file. Raises ConfigurationError (`bad_recipe`)."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8")) if path else {}
        return ChapterRecipe.model_validate(content | ({} if steps is None else {"steps": steps}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ConfigurationError("bad_recipe", f"{path or 'The recipe'}: {where}: {first['msg']}.") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_recipe", f"{path} cannot be read as TOML: {error}.") from None


# PyTorch and safetensors write through code of their own, and say so in other classes than OSError.
_WRITERS = ("PytorchStreamWriter", "inline_container", "Error while serializing: I/O error")


@contextmanager
def disk_failures() -> Iterator[None]:
    """Turns what a disk refuses into ConfigurationError (`unwritable_directory`)."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # (not of a system call: libraries raise it for what they cannot understand)
            raise
        raise _unwritable_directory(
            f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
        ) from None
    except Exception as error:  # safetensors and PyTorch have no common base
        if any(mark in str(error) for mark in _WRITERS):
            raise _unwritable_directory(str(error).splitlines()[0]) from None
        raise


def _unwritable_directory(what: str) -> ConfigurationError:
    return ConfigurationError(
        "unwritable_directory",
        f"A file cannot be written or read: {what}. Make room or choose another directory, and give the same command "
        "again: what is finished stays, and a run goes on from its last whole checkpoint.",
    )


# A question that does not find its passage among the first three of the corpus could be about any.
_MAX_RANK = 3


def make_question_generator(
    directory: Path, start: str, out: Path, show: ProgressReporter
) -> Callable[[PairSet], PairSet]:
    """Asks about every passage of a set with the model of `directory`; the encoder `start` has to lead back."""

    def more(pairs: PairSet) -> PairSet:
        generator = CausalQuestionGenerator(directory)
        total = len(pairs.passages)
        asked = generate_pairs(
            pairs.passages, generator, out / "questions", lambda done: show.step("Questions", done, total)
        )
        teacher = SparseTeacher(start)
        vectors = load_teacher_vectors(teacher, asked, out / "vectors")
        kept = check_round_trip(asked, VectorCandidates(vectors, teacher.fingerprint), _MAX_RANK)
        show.say(f"{int(kept.sum()):,} of {len(asked):,} questions lead back to their passage.")
        return asked.take(kept)

    return more
