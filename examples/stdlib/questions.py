"""The committed how-to questions over the standard library and the names that answer them.

They were written before any ranking was looked at, and are not changed because of how they rank.
"""

from pathlib import Path
from typing import NamedTuple

import orjson

QUESTIONS = Path(__file__).with_name("questions.jsonl")


class Question(NamedTuple):
    """A question in everyday words. ``answers`` are documented by Python 3.11 to 3.13, ``also`` by some of these."""

    text: str
    answers: tuple[str, ...]
    also: tuple[str, ...] = ()

    def rank(self, ids: list[str]) -> int | None:
        """The place, from 1, of the first acceptable answer in a ranking; None when there is none."""
        wanted = {*self.answers, *self.also}
        return next((place for place, name in enumerate(ids, 1) if name in wanted), None)


def questions(path: Path = QUESTIONS) -> list[Question]:
    """The questions in the order of their file."""
    rows = (orjson.loads(line) for line in path.read_bytes().splitlines())
    return [Question(row["question"], tuple(row["answers"]), tuple(row.get("also", ()))) for row in rows]
