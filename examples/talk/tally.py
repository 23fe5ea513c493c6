"""What the answers to the questions on talk amount to.

The committed questions on the talks, and the words that are said where they are answered.

They were written before any ranking was looked at, and are not changed because of how they rank.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import orjson

from examples.service import TimedAnswer
from examples.stdlib.tally import MODES

QUESTIONS_FILE = Path(__file__).with_name("questions.jsonl")


class TalkQuestion(NamedTuple):
    """A question in everyday words, the id of the talk that answers it, and words of the answer (any of them)."""

    text: str
    talk: str
    said: tuple[str, ...]

    def rank(self, hits: Sequence[Mapping[str, Any]]) -> int | None:
        """The place, from 1, of the first passage in which the answer is said; None when there is none."""
        return next((place for place, hit in enumerate(hits, 1) if self.answered_by(hit)), None)

    def answered_by(self, hit: Mapping[str, Any]) -> bool:
        """Whether a hit's passage holds words of the answer."""
        text = " ".join(hit["passage"]["text"].split())
        return hit["id"] == self.talk and any(words in text for words in self.said)


def read_questions(path: Path = QUESTIONS_FILE) -> list[TalkQuestion]:
    """The questions in the order of their file."""
    rows = (orjson.loads(line) for line in path.read_bytes().splitlines())
    return [TalkQuestion(row["question"], row["talk"], tuple(row["said"])) for row in rows]


MAX_RANK = 3


class TalkQuestionRankings(NamedTuple):
    """One question, and in each mode the passages that were found."""

    question: TalkQuestion
    answers: dict[str, TimedAnswer]

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


def tally_modes(asked: Sequence[TalkQuestionRankings]) -> list[ModeTally]:
    """One row a mode."""
    rows = []
    for mode in MODES:
        ranks = [one.rank(mode) for one in asked]
        talk = sum(bool(one.hits(mode)) and one.hits(mode)[0]["id"] == one.question.talk for one in asked)
        within = sum(rank is not None and rank <= MAX_RANK for rank in ranks)
        times = [one.answers[mode].client_ms for one in asked]
        rows.append(ModeTally(mode, talk, ranks.count(1), within, median(times)))
    return rows


def first_of_each_talk(asked: Sequence[TalkQuestionRankings]) -> list[TalkQuestionRankings]:
    """The examples that are shown: of each talk the first question of the file, so nobody picks them."""
    return list({one.question.talk: one for one in reversed(asked)}.values())[::-1]


def tally_as_json(asked: Sequence[TalkQuestionRankings]) -> dict[str, Any]:
    """The counts, and for each question the place of its first answer in each mode (null: not among the passages)."""
    modes = {
        row.mode: {
            "talk": row.talk,
            "first": row.first,
            f"within_{MAX_RANK}": row.within,
            "p50_ms": round(row.median_ms, 3),
        }
        for row in tally_modes(asked)
    }
    ranks = [{"question": one.question.text} | {mode: one.rank(mode) for mode in MODES} for one in asked]
    return {"questions": len(asked), "modes": modes, "ranks": ranks}
