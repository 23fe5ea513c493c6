"""What the answers to the questions amount to: counts by mode, and the questions that show where the modes differ."""

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any, NamedTuple

from examples.stdlib.questions import Question

MODES = ("lexical", "sparse", "hybrid")
WITHIN = 5


class Ranking(NamedTuple):
    """What one mode gave for one question: document ids, best first, and what the request took in milliseconds."""

    ids: tuple[str, ...]
    client_ms: float
    server_ms: float


class Asked(NamedTuple):
    """One question and its ranking in each mode."""

    question: Question
    rankings: Mapping[str, Ranking]

    def rank(self, mode: str) -> int | None:
        """The place of the first acceptable answer, from 1."""
        return self.question.rank(list(self.rankings[mode].ids))

    def answered(self, mode: str) -> bool:
        """Whether an acceptable answer is among the first five."""
        rank = self.rank(mode)
        return rank is not None and rank <= WITHIN


class ModeTally(NamedTuple):
    """How one mode did over all questions. Times are in milliseconds, seen by the client."""

    mode: str
    questions: int
    first: int
    within: int
    median_ms: float
    p90_ms: float


def tally(asked: Sequence[Asked]) -> list[ModeTally]:
    """One row a mode."""
    rows = []
    for mode in MODES:
        times = [item.rankings[mode].client_ms for item in asked]
        first = sum(item.rank(mode) == 1 for item in asked)
        within = sum(item.answered(mode) for item in asked)
        p90 = quantiles(times, n=10)[-1] if len(times) > 1 else times[0]
        rows.append(ModeTally(mode, len(asked), first, within, median(times), p90))
    return rows


def contrasts(asked: Sequence[Asked]) -> list[tuple[tuple[bool, ...], int, Asked]]:
    """One example for each pattern of which modes answered: (pattern in the order of MODES, how many like it, example).

    The example is the first question of the file with that pattern, so nobody picks it. Patterns that more modes
    answer come first, then the commoner ones.
    """
    groups: dict[tuple[bool, ...], list[Asked]] = {}
    for item in asked:
        groups.setdefault(tuple(item.answered(mode) for mode in MODES), []).append(item)
    ordered = sorted(groups.items(), key=lambda group: (-sum(group[0]), -len(group[1])))
    return [(pattern, len(items), items[0]) for pattern, items in ordered]


def as_json(asked: Sequence[Asked]) -> dict[str, Any]:
    """The counts, and for each question the place of its first answer in each mode (null: not among the hits)."""
    modes = {
        row.mode: {
            "first": row.first,
            f"within_{WITHIN}": row.within,
            "client_ms": {"p50": round(row.median_ms, 3), "p90": round(row.p90_ms, 3)},
        }
        for row in tally(asked)
    }
    ranks = [{"question": item.question.text} | {mode: item.rank(mode) for mode in MODES} for item in asked]
    return {"questions": len(asked), "modes": modes, "ranks": ranks}
