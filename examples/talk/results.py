"""Questions about the talks, the passages found in each mode, and counts of the answers.

A question names words of the talk where it is answered. The questions in `questions.jsonl` were written before any
ranking was seen, and are not changed because of one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import orjson

from examples.service import TimedAnswer
from examples.stdlib.results import MODES

QUESTIONS_FILE = Path(__file__).with_name("questions.jsonl")
MAX_RANK = 3


class TalkQuestion(NamedTuple):
    """A question in everyday words, the id of the talk that answers it, and words of the answer (any of them)."""

    text: str
    talk: str
    said: tuple[str, ...]

    def rank(self, hits: Sequence[Mapping[str, Any]]) -> int | None:
        """Return the rank, from 1, of the first passage with the answer, or None."""
        return next((place for place, hit in enumerate(hits, 1) if self.answered_by(hit)), None)

    def answered_by(self, hit: Mapping[str, Any]) -> bool:
        """Check whether a hit's passage has words of the answer."""
        text = " ".join(hit["passage"]["text"].split())
        return hit["id"] == self.talk and any(words in text for words in self.said)


def read_questions(path: Path = QUESTIONS_FILE) -> list[TalkQuestion]:
    """Read the questions in the order of their file."""
    rows = (orjson.loads(line) for line in path.read_bytes().splitlines())
    return [TalkQuestion(row["question"], row["talk"], tuple(row["said"])) for row in rows]


class TalkQuestionRankings(NamedTuple):
    """A question and its answer in each mode."""

    question: TalkQuestion
    answers: dict[str, TimedAnswer]

    def hits(self, mode: str) -> list[dict[str, Any]]:
        """Return the passages of a mode, best first."""
        return list(self.answers[mode].answer["hits"])

    def rank(self, mode: str) -> int | None:
        """Return the rank of the first passage with the answer, from 1, or None."""
        return self.question.rank(self.hits(mode))


class ModeResults(NamedTuple):
    """Counts of a mode: first passages of the right talk (`talk`), with the answer (`first`), and answers in the first
    three passages (`within`).
    """

    mode: str
    talk: int
    first: int
    within: int
    median_ms: float


def measure_modes(rankings: Sequence[TalkQuestionRankings]) -> list[ModeResults]:
    """Count the answers of each mode."""
    rows = []
    for mode in MODES:
        ranks = [item.rank(mode) for item in rankings]
        talk = sum(bool(item.hits(mode)) and item.hits(mode)[0]["id"] == item.question.talk for item in rankings)
        within = sum(rank is not None and rank <= MAX_RANK for rank in ranks)
        times = [item.answers[mode].client_ms for item in rankings]
        rows.append(ModeResults(mode, talk, ranks.count(1), within, median(times)))
    return rows


def first_of_each_talk(rankings: Sequence[TalkQuestionRankings]) -> list[TalkQuestionRankings]:
    """Return the first question of the file for each talk: examples that are not picked by hand."""
    return list({item.question.talk: item for item in reversed(rankings)}.values())[::-1]


def results_as_json(rankings: Sequence[TalkQuestionRankings]) -> dict[str, Any]:
    """Return the counts, and for each question the rank of its first answer in each mode (null: not in the
    passages)."""
    modes = {
        row.mode: {
            "talk": row.talk,
            "first": row.first,
            f"within_{MAX_RANK}": row.within,
            "p50_ms": round(row.median_ms, 3),
        }
        for row in measure_modes(rankings)
    }
    ranks = [{"question": item.question.text} | {mode: item.rank(mode) for mode in MODES} for item in rankings]
    return {"questions": len(rankings), "modes": modes, "ranks": ranks}
