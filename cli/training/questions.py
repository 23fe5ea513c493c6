"""Generated questions for `train own`: a local language model asks, and what leads back to its passage stays."""

from collections.abc import Callable
from pathlib import Path

from models.training.own.causal_questions import CausalQuestions
from models.training.own.generated import generated_pairs, round_trip
from models.training.pairs import PairSet
from models.training.ranking import VectorCandidates
from models.training.show import Show
from models.training.teachers.sparse import SparseTeacher
from models.training.vectors import teacher_vectors

# A question that does not find its passage among the first three of the corpus could be about any.
_WITHIN = 3


def questions(directory: Path, start: str, out: Path, show: Show) -> Callable[[PairSet], PairSet]:
    """Asks about every passage of a set with the model of `directory`; the encoder `start` has to lead back."""

    def more(pairs: PairSet) -> PairSet:
        generator = CausalQuestions(directory)
        total = len(pairs.passages)
        asked = generated_pairs(
            pairs.passages, generator, out / "questions", lambda done: show.step("Questions", done, total)
        )
        teacher = SparseTeacher(start)
        vectors = teacher_vectors(teacher, asked, out / "vectors")
        kept = round_trip(asked, VectorCandidates(vectors, teacher.fingerprint), _WITHIN)
        show.say(f"{int(kept.sum()):,} of {len(asked):,} questions lead back to their passage.")
        return asked.take(kept)

    return more
