"""Whether a title says something that is said."""

from __future__ import annotations

import re

from models.chapters.engine import Episode
from models.chapters.titles.words import common_words

LONGEST = 120
# A word; or a sign of a script that puts no spaces between words (kana, Han, Thai) or glues endings to them (Hangul).
_SIGNS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f"
_WORD = re.compile(rf"[{_SIGNS}]|[^\W_{_SIGNS}]+")
_SIGN = re.compile(rf"[{_SIGNS}]")
# Inflected words are the same ("parsing", "parsed"): so many letters are compared. With half of the words that may be
# new, 4 % and 18 % of the titles that people gave would be refused, and 80 % and 83 % of another chapter's.
_LETTERS = 4
_NEW = 0.5


def clean(title: str, longest: int | None = LONGEST) -> str:
    """One line without control characters, cut between words where it is too long."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in title).split())
    if longest is None or len(line) <= longest:
        return line
    kept = line[: longest - 1]
    if " " in kept[longest // 2 :]:
        kept = kept[: kept.rindex(" ")]
    return kept.rstrip() + "…"


def says_something(title: str) -> bool:
    """Whether there is a letter or a digit in it: signs alone name no chapter."""
    return any(sign.isalnum() for sign in title)


class Said:
    """What a title of the characters `start` to `end` may say: their words, and the talk's title and description."""

    def __init__(self, episode: Episode, start: int, end: int) -> None:
        said = f"{episode.text[start:end]} {episode.title} {episode.description}"
        self._said = {word[:_LETTERS] for word in _WORD.findall(said.lower())}

    def holds(self, title: str) -> bool:
        """Whether at most half of the title's words that mean something are new. One without such words says nothing
        that could be wrong."""
        new = [word[:_LETTERS] not in self._said for word in _WORD.findall(title.lower()) if _means(word)]
        return sum(new) <= _NEW * len(new)


def _means(word: str) -> bool:
    return (len(word) > 1 and word not in common_words()) or _SIGN.match(word) is not None
