"""The words of a talk, and which of them say nothing by themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

# A word or what ends a phrase. C++, node.js, TCP/IP, O'Brien and front-end are one word each.
_TOKEN = re.compile(r"([^\W_]+(?:['.+#&/-][^\W_]+|[+#]+)*)|[.!?…;:,\n()\[\]\"“”«»–—。、！？]")
_STRETCH = 100  # words
_FEW = 5  # stretches: fewer tell nothing
# In more of the stretches than this a word is as common as "and", whatever the language.
_EVERYWHERE = 0.6
_STEM = 5  # letters


class Word(NamedTuple):
    """As it is written and in lower case; `breaks`: something that ends a phrase stands before it."""

    shown: str
    plain: str
    breaks: bool


def words(text: str) -> list[Word]:
    """The words of a text, in order."""
    found: list[Word] = []
    breaks = False
    for shown in _TOKEN.findall(text.replace("’", "'")):
        if shown:
            found.append(Word(shown, shown.lower(), breaks))
        breaks = not shown
    return found


def stretches(said: Sequence[Word]) -> Iterator[set[str]]:
    """The words of each hundred in a row."""
    for first in range(0, len(said), _STRETCH):
        yield {word.plain for word in said[first : first + _STRETCH]}


def empty_words(held: Counter[str], count: int) -> frozenset[str]:
    """Words that say nothing of a chapter: common English ones, and those that are everywhere in this talk.

    Of `count` stretches of the talk a word is in `held`.
    """
    if count < _FEW:
        return common_words()
    return common_words() | {word for word, number in held.items() if number > _EVERYWHERE * count}


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
