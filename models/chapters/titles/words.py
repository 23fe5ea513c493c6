"""The words of a talk, and which of them say nothing by themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# C++, node.js, TCP/IP, O'Brien and front-end are one word each.
_WORD = re.compile(r"[^\W_]+(?:['.+#&/-][^\W_]+|[+#]+)*")
_BREAK = re.compile(r"[.!?…;:,\n()\[\]\"“”«»–—。、！？]")
_STRETCH = 100  # words
_FEW = 5  # stretches: fewer tell nothing
# In more of the stretches than this a word is as common as "and", whatever the language.
_EVERYWHERE = 0.6
_STEM = 5  # letters


@dataclass(frozen=True, slots=True)
class Word:
    """As it is written and in lower case; `breaks`: something that ends a phrase stands before it."""

    shown: str
    plain: str
    breaks: bool


def words(text: str) -> list[Word]:
    """The words of a text, in order."""
    found: list[Word] = []
    last = 0
    straight = text.replace("’", "'")
    for match in _WORD.finditer(straight):
        shown = match.group()
        found.append(Word(shown, shown.lower(), _BREAK.search(straight, last, match.start()) is not None))
        last = match.end()
    return found


def empty_words(said: Sequence[Word]) -> frozenset[str]:
    """Words that say nothing of a chapter: common English ones, and those that are everywhere in this talk."""
    stretches: Counter[str] = Counter()
    firsts = range(0, len(said), _STRETCH)
    for first in firsts:
        stretches.update({word.plain for word in said[first : first + _STRETCH]})
    everywhere = {word for word, held in stretches.items() if held > _EVERYWHERE * len(firsts)}
    return common_words() | everywhere if len(firsts) >= _FEW else common_words()


def same_stem(one: str, other: str) -> bool:
    """Whether two words are forms of one, as far as their beginnings tell: host and hosting, branches and branching.

    Which words are like one another must not depend on the language, so no stemmer of one is asked.
    """
    begins = min(len(one), len(other), _STEM)
    return begins > 1 and one[:begins] == other[:begins]


@cache
def common_words() -> frozenset[str]:
    """English words that no title begins or ends with."""
    return frozenset((Path(__file__).parent / "common_words.txt").read_text(encoding="utf-8").split())
