"""What the answers to the questions on talk amount to."""

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from examples.service import Answered
from examples.stdlib.tally import MODES
from examples.talk.questions import Question

WITHIN = 3


class Asked(NamedTuple):
    """One question, and in each mode the passages that were found."""

    question: Question
    answers: dict[str, Answered]

    def hits(self, mode: str) -> list[dict[str, Any]]:
        """The passages of a mode, best first."""
        return list(self.answers[mode].answer["hits"])

    def rank(self, mode: str) -> int | None:
        """The place of the first passage in which the answer is said, from 1."""
        return self.question.rank(self.hits(mode))


class ModeTally(NamedTuple):
    """How often the first passage is of the right talk, and says the answer, or one of the first three does."""

    mode: str
    talk: int
    first: int
    within: int
    median_ms: float


def tally(asked: Sequence[Asked]) -> list[ModeTally]:
    """One row a mode."""
    rows = []
    for mode in MODES:
        ranks = [one.rank(mode) for one in asked]
        talk = sum(bool(one.hits(mode)) and one.hits(mode)[0]["id"] == one.question.talk for one in asked)
        within = sum(rank is not None and rank <= WITHIN for rank in ranks)
        times = [one.answers[mode].client_ms for one in asked]
        rows.append(ModeTally(mode, talk, ranks.count(1), within, median(times)))
    return rows


def first_of_each_talk(asked: Sequence[Asked]) -> list[Asked]:
    """The examples that are shown: of each talk the first question of the file, so nobody picks them."""
    return list({one.question.talk: one for one in reversed(asked)}.values())[::-1]


def as_json(asked: Sequence[Asked]) -> dict[str, Any]:
    """The counts, and for each question the place of its first answer in each mode (null: not among the passages)."""
    modes = {
        row.mode: {
            "talk": row.talk,
            "first": row.first,
            f"within_{WITHIN}": row.within,
            "p50_ms": round(row.median_ms, 3),
        }
        for row in tally(asked)
    }
    ranks = [{"question": one.question.text} | {mode: one.rank(mode) for mode in MODES} for one in asked]
    return {"questions": len(asked), "modes": modes, "ranks": ranks}
