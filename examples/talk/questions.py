"""The committed questions on the talks, and the words that are said where they are answered.

They were written before any ranking was looked at, and are not changed because of how they rank.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

QUESTIONS = Path(__file__).with_name("questions.jsonl")


class Question(NamedTuple):
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


def questions(path: Path = QUESTIONS) -> list[Question]:
    """The questions in the order of their file."""
    rows = (orjson.loads(line) for line in path.read_bytes().splitlines())
    return [Question(row["question"], row["talk"], tuple(row["said"])) for row in rows]
