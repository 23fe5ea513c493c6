"""What the answers to the questions amount to: counts by mode, and the questions that show where the modes differ.

The committed how-to questions over the standard library and the names that answer them.

They were written before any ranking was looked at, and are not changed because of how they rank.

The questions, asked of the running service.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import orjson

from examples.service import ServiceIndex

QUESTIONS_FILE = Path(__file__).with_name("questions.jsonl")


class Question(NamedTuple):
    """A question in everyday words. ``answers`` are documented by Python 3.11 to 3.13, ``also`` by some of these."""

    text: str
    answers: tuple[str, ...]
    also: tuple[str, ...] = ()

    def rank(self, ids: list[str]) -> int | None:
        """The place, from 1, of the first acceptable answer in a ranking; None when there is none."""
        wanted = {*self.answers, *self.also}
        return next((place for place, name in enumerate(ids, 1) if name in wanted), None)


def read_questions(path: Path = QUESTIONS_FILE) -> list[Question]:
    """The questions in the order of their file."""
    rows = (orjson.loads(line) for line in path.read_bytes().splitlines())
    return [Question(row["question"], tuple(row["answers"]), tuple(row.get("also", ()))) for row in rows]


MODES = ("lexical", "sparse", "hybrid")
MAX_RANK = 5


class TimedRanking(NamedTuple):
    """What one mode gave for one question: document ids, best first, and what the request took in milliseconds."""

    ids: tuple[str, ...]
    client_ms: float
    server_ms: float


class QuestionRankings(NamedTuple):
    """One question and its ranking in each mode."""

    question: Question
    rankings: Mapping[str, TimedRanking]

    def rank(self, mode: str) -> int | None:
        """The place of the first acceptable answer, from 1."""
        return self.question.rank(list(self.rankings[mode].ids))

    def answered(self, mode: str) -> bool:
        """Whether an acceptable answer is among the first five."""
        rank = self.rank(mode)
        return rank is not None and rank <= MAX_RANK


class ModeTally(NamedTuple):
    """How one mode did over all questions. Times are in milliseconds, seen by the client."""

    mode: str
    questions: int
    first: int
    within: int
    median_ms: float
    p90_ms: float


def tally_modes(asked: Sequence[QuestionRankings]) -> list[ModeTally]:
    """One row a mode."""
    rows = []
    for mode in MODES:
        times = [item.rankings[mode].client_ms for item in asked]
        first = sum(item.rank(mode) == 1 for item in asked)
        within = sum(item.answered(mode) for item in asked)
        p90 = quantiles(times, n=10)[-1] if len(times) > 1 else times[0]
        rows.append(ModeTally(mode, len(asked), first, within, median(times), p90))
    return rows


def find_contrasts(asked: Sequence[QuestionRankings]) -> list[tuple[tuple[bool, ...], int, QuestionRankings]]:
    """One example for each pattern of which modes answered: (pattern in the order of MODES, how many like it, example).

    The example is the first question of the file with that pattern, so nobody picks it. Patterns that more modes
    answer come first, then the commoner ones.
    """
    groups: dict[tuple[bool, ...], list[QuestionRankings]] = {}
    for item in asked:
        groups.setdefault(tuple(item.answered(mode) for mode in MODES), []).append(item)
    ordered = sorted(groups.items(), key=lambda group: (-sum(group[0]), -len(group[1])))
    return [(pattern, len(items), items[0]) for pattern, items in ordered]


def tally_as_json(asked: Sequence[QuestionRankings]) -> dict[str, Any]:
    """The counts, and for each question the place of its first answer in each mode (null: not among the hits)."""
    modes = {
        row.mode: {
            "first": row.first,
            f"within_{MAX_RANK}": row.within,
            "client_ms": {"p50": round(row.median_ms, 3), "p90": round(row.p90_ms, 3)},
        }
        for row in tally_modes(asked)
    }
    ranks = [{"question": item.question.text} | {mode: item.rank(mode) for mode in MODES} for item in asked]
    return {"questions": len(asked), "modes": modes, "ranks": ranks}


HIT_COUNT = 10  # hits asked for with every question
WARM_UP_QUERIES = 10  # questions asked once before any is timed: a fresh Java process interprets its code at first


def make_searcher(service: ServiceIndex) -> Callable[[str, str], TimedRanking]:
    """What asks one question in one mode."""

    def search(query: str, mode: str) -> TimedRanking:
        answer, elapsed = service.search(query, mode, size=HIT_COUNT)
        return TimedRanking(tuple(hit["id"] for hit in answer["hits"]), elapsed, answer["timings_ms"]["total"])

    return search


def ask_questions(search: Callable[[str, str], TimedRanking], questions: Sequence[Question]) -> list[QuestionRankings]:
    """Asks every question in every mode. The modes take turns, so that none of them has the warmer machine."""
    for question in questions[:WARM_UP_QUERIES]:
        for mode in MODES:
            search(question.text, mode)
    return [QuestionRankings(question, {mode: search(question.text, mode) for mode in MODES}) for question in questions]
