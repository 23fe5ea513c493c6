"""How chapters begin: words with which a speaker turns to something else, and those with which one goes on.

`cues.json` holds weights of English words, fitted by `python -m benchmarks.chapter_cues`. Talk in other languages has
almost none of them, and is divided by cohesion alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
# Words after the beginning of a segment and before it, and the characters in which they are looked for.
_OPENING, _BEFORE = 12, 8
_AFTER_REACH, _BEFORE_REACH = 120, 80
_QUESTIONS = "?？؟"


@dataclass(frozen=True, slots=True)
class Cues:
    """Weights of the first word, of each distinct word among the first twelve and among the eight before; and of a
    question just before, which is answered first."""

    first: Mapping[str, float]
    opening: Mapping[str, float]
    before: Mapping[str, float]
    after_question: float

    def at(self, text: str, offset: int) -> float:
        """How much speaks for a chapter that begins with the character at `offset`."""
        opening, before = words_around(text, offset)
        score = self.first.get(opening[0], 0.0) if opening else 0.0
        score += sum(self.opening.get(word, 0.0) for word in set(opening))
        score += sum(self.before.get(word, 0.0) for word in set(before))
        return score + self.after_question * after_question(text, offset)

    def of(self, text: str, offsets: Sequence[int]) -> npt.NDArray[np.float64]:
        """`at` of each offset."""
        return np.fromiter((self.at(text, offset) for offset in offsets), np.float64, len(offsets))


def words_around(text: str, offset: int) -> tuple[list[str], list[str]]:
    """The words that follow, and those that go before."""
    after = _words(text[offset : offset + _AFTER_REACH])[:_OPENING]
    return after, _words(text[max(0, offset - _BEFORE_REACH) : offset])[-_BEFORE:]


def after_question(text: str, offset: int) -> bool:
    """Whether what is said just before is a question."""
    return text[max(0, offset - _BEFORE_REACH) : offset].rstrip()[-1:] in tuple(_QUESTIONS)


def _words(stretch: str) -> list[str]:
    return _WORD.findall(stretch.lower().replace("’", "'"))


@cache
def shipped() -> Cues:
    """Those of `cues.json`."""
    return Cues(**json.loads((Path(__file__).parent / "cues.json").read_text(encoding="utf-8")))
