"""Questions about the standard library, their rankings in each mode, and counts of the answers.

The questions in `questions.jsonl` were written before any ranking was seen, and are not changed because of one.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import orjson

from examples.service import ServiceIndex

QUESTIONS_FILE = Path(__file__).with_name("questions.jsonl")
MODES = ("lexical", "sparse", "hybrid")
# Hybrid search whose best documents are reranked by the encoder's dense query table.
RERANKED = "reranked"
MAX_RANK = 5
HIT_COUNT = 10  # hits of each search
WARM_UP_QUERIES = 10  # questions before the timed ones, because a new Java process interprets its code at first


class Question(NamedTuple):
    """A question in everyday words. Python 3.11 to 3.13 document `answers`; some of them also document `also`."""

    text: str
    answers: tuple[str, ...]
    also: tuple[str, ...] = ()

    def rank(self, ids: list[str]) -> int | None:
        """Return the rank, from 1, of the first correct answer, or None."""
        wanted = {*self.answers, *self.also}
        return next((place for place, name in enumerate(ids, 1) if name in wanted), None)


def read_questions(path: Path = QUESTIONS_FILE) -> list[Question]:
    """Read the questions in the order of their file."""
    rows = (orjson.loads(line) for line in path.read_bytes().splitlines())
    return [Question(row["question"], tuple(row["answers"]), tuple(row.get("also", ()))) for row in rows]


class TimedRanking(NamedTuple):
    """The answer to a question in a mode: document ids, best first, and times in milliseconds."""

    ids: tuple[str, ...]
    client_ms: float
    server_ms: float


class QuestionRankings(NamedTuple):
    """A question and its ranking in each mode."""

    question: Question
    rankings: Mapping[str, TimedRanking]

    def rank(self, mode: str) -> int | None:
        """Return the rank of the first correct answer, from 1, or None."""
        return self.question.rank(list(self.rankings[mode].ids))

    def answered(self, mode: str) -> bool:
        """Check whether a correct answer is among the first five."""
        rank = self.rank(mode)
        return rank is not None and rank <= MAX_RANK


def ask_questions(
    search: Callable[[str, str], TimedRanking], questions: Sequence[Question], modes: Sequence[str] = MODES
) -> list[QuestionRankings]:
    """Search for each question in each mode. The modes take turns, so that none has warmer caches."""
    for question in questions[:WARM_UP_QUERIES]:
        for mode in modes:
            search(question.text, mode)
    return [QuestionRankings(question, {mode: search(question.text, mode) for mode in modes}) for question in questions]


def make_searcher(service: ServiceIndex) -> Callable[[str, str], TimedRanking]:
    """Make a function that searches for a question in a mode, or reranked."""

    def search(query: str, mode: str) -> TimedRanking:
        options: dict[str, Any] = {"rerank": {}} if mode == RERANKED else {}
        answer, elapsed = service.search(query, "hybrid" if mode == RERANKED else mode, size=HIT_COUNT, **options)
        return TimedRanking(tuple(hit["id"] for hit in answer["hits"]), elapsed, answer["timings_ms"]["total"])

    return search


def modes_of(rankings: Sequence[QuestionRankings]) -> tuple[str, ...]:
    """Return the modes in which the questions were asked, in their order."""
    return tuple(rankings[0].rankings)


class ModeResults(NamedTuple):
    """Counts of a mode over all questions. Times are in milliseconds, at the client."""

    mode: str
    questions: int
    first: int
    within: int
    median_ms: float
    p90_ms: float


def measure_modes(rankings: Sequence[QuestionRankings]) -> list[ModeResults]:
    """Count the answers of each mode."""
    rows = []
    for mode in modes_of(rankings):
        times = [item.rankings[mode].client_ms for item in rankings]
        first = sum(item.rank(mode) == 1 for item in rankings)
        within = sum(item.answered(mode) for item in rankings)
        p90 = quantiles(times, n=10)[-1] if len(times) > 1 else times[0]
        rows.append(ModeResults(mode, len(rankings), first, within, median(times), p90))
    return rows


def find_contrasts(rankings: Sequence[QuestionRankings]) -> list[tuple[tuple[bool, ...], int, QuestionRankings]]:
    """Return (pattern, number of questions, example) for each pattern of modes that answered, in their order.

    The example is the first question of the file with the pattern, so it is not picked by hand. Patterns with more
    modes come first, then the more frequent ones.
    """
    groups: dict[tuple[bool, ...], list[QuestionRankings]] = {}
    for item in rankings:
        groups.setdefault(tuple(item.answered(mode) for mode in modes_of(rankings)), []).append(item)
    ordered = sorted(groups.items(), key=lambda group: (-sum(group[0]), -len(group[1])))
    return [(pattern, len(items), items[0]) for pattern, items in ordered]


def results_as_json(rankings: Sequence[QuestionRankings]) -> dict[str, Any]:
    """Return the counts, and for each question the rank of its first answer in each mode (null: not in the hits)."""
    modes = {
        row.mode: {
            "first": row.first,
            f"within_{MAX_RANK}": row.within,
            "client_ms": {"p50": round(row.median_ms, 3), "p90": round(row.p90_ms, 3)},
        }
        for row in measure_modes(rankings)
    }
    ranks = [{"question": item.question.text} | {mode: item.rank(mode) for mode in item.rankings} for item in rankings]
    return {"questions": len(rankings), "modes": modes, "ranks": ranks}
