"""Titles out of the words of a chapter: the phrases that are said there, and at its beginning, more than elsewhere.

The words of a talk, and which of them say nothing by themselves.

Whether a title says something that is said.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from models.chapters.engine import Episode

# A word or what ends a phrase. C++, node.js, TCP/IP, O'Brien and front-end are one word each.
_TOKEN = re.compile(r"([^\W_]+(?:['.+#&/-][^\W_]+|[+#]+)*)|[.!?…;:,\n()\[\]\"“”«»–—。、！？]")
_WINDOW_WORDS = 100  # words
_MIN_WINDOWS = 5  # stretches: fewer tell nothing
# In more of the stretches than this a word is as common as "and", whatever the language.
_MAX_WINDOW_SHARE = 0.6
_STEM_LETTERS = 5  # letters


class TitleWord(NamedTuple):
    """As it is written and in lower case; `breaks`: something that ends a phrase stands before it."""

    shown: str
    plain: str
    breaks: bool


def tokenise_words(text: str) -> list[TitleWord]:
    """The words of a text, in order."""
    found: list[TitleWord] = []
    breaks = False
    for shown in _TOKEN.findall(text.replace("’", "'")):
        if shown:
            found.append(TitleWord(shown, shown.lower(), breaks))
        breaks = not shown
    return found


def iter_word_sets(said: Sequence[TitleWord]) -> Iterator[set[str]]:
    """The words of each hundred in a row."""
    for first in range(0, len(said), _WINDOW_WORDS):
        yield {word.plain for word in said[first : first + _WINDOW_WORDS]}


def find_stop_words(held: Counter[str], count: int) -> frozenset[str]:
    """Words that say nothing of a chapter: common English ones, and those that are everywhere in this talk.

    Of `count` stretches of the talk a word is in `held`.
    """
    if count < _MIN_WINDOWS:
        return load_common_words()
    return load_common_words() | {word for word, number in held.items() if number > _MAX_WINDOW_SHARE * count}


def has_same_stem(one: str, other: str) -> bool:
    """Whether two words are forms of one, as far as their beginnings tell: host and hosting, branches and branching.

    Which words are like one another must not depend on the language, so no stemmer of one is asked.
    """
    begins = min(len(one), len(other), _STEM_LETTERS)
    return begins > 1 and one[:begins] == other[:begins]


@cache
def load_common_words() -> frozenset[str]:
    """English words that no title begins or ends with."""
    return frozenset((Path(__file__).parent / "common_words.txt").read_text(encoding="utf-8").split())


MAX_TITLE_CHARACTERS = 120
# A word; or a sign of a script that puts no spaces between words (kana, Han, Thai) or glues endings to them (Hangul).
_UNSPACED_SCRIPTS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f"
_WORD = re.compile(rf"[{_UNSPACED_SCRIPTS}]|[^\W_{_UNSPACED_SCRIPTS}]+")
_UNSPACED_SIGN = re.compile(rf"[{_UNSPACED_SCRIPTS}]")
# Inflected words are the same ("parsing", "parsed"): so many letters are compared. With half of the words that may be
# new, 4 % and 18 % of the titles that people gave would be refused, and 80 % and 83 % of another chapter's.
_COMPARED_LETTERS = 4
_MAX_NEW_SHARE = 0.5


def clean_title(title: str, longest: int | None = MAX_TITLE_CHARACTERS) -> str:
    """One line without control characters, cut between words where it is too long."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in title).split())
    if longest is None or len(line) <= longest:
        return line
    kept = line[: longest - 1]
    if " " in kept[longest // 2 :]:
        kept = kept[: kept.rindex(" ")]
    return kept.rstrip() + "…"


def has_letter_or_digit(title: str) -> bool:
    """Whether there is a letter or a digit in it: signs alone name no chapter."""
    return any(sign.isalnum() for sign in title)


class TitleVocabulary:
    """What a title of the characters `start` to `end` may say: their words, and the talk's title and description."""

    def __init__(self, episode: Episode, start: int, end: int) -> None:
        said = f"{episode.text[start:end]} {episode.title} {episode.description}"
        self._said = {word[:_COMPARED_LETTERS] for word in _WORD.findall(said.lower())}

    def holds(self, title: str) -> bool:
        """Whether at most half of the title's words that mean something are new. One without such words says nothing
        that could be wrong."""
        new = [
            word[:_COMPARED_LETTERS] not in self._said
            for word in _WORD.findall(title.lower())
            if _is_content_word(word)
        ]
        return sum(new) <= _MAX_NEW_SHARE * len(new)


def _is_content_word(word: str) -> bool:
    return (len(word) > 1 and word not in load_common_words()) or _UNSPACED_SIGN.match(word) is not None


# Chosen on the tuning half of both sets (docs/decisions/0196-titles-of-chapters.md).
_OPENING_WORDS = 20  # words of a chapter in which its speaker names what follows,
_OPENING_WEIGHT = 8  # where a word counts as so many more
_MAX_PHRASE_WORDS = 5  # words of a phrase
_FREQUENCY_EXPONENT = 1.5  # exponent of how often a word is said
_COHESION_WEIGHT = 0.2  # of the share of its words' uses that are in the phrase
_LENGTH_PENALTY = 0.1  # of the number of its words, by which their sum is divided
_CAPITAL_WEIGHT = 1.3  # a phrase with a capital letter names something
_MAX_PHRASES = 2  # of a title
_MAX_OFFERS = 12


def phrase_titles(episode: Episode, bounds: Sequence[tuple[int, int]]) -> list[list[str]]:
    """A `Titler`: for each stretch of the text titles of one or two phrases, best first; last how the text begins.

    Takes time linear in the text.
    """
    # The words of one chapter at a time: those of a long talk, as objects, take a hundred times its text.
    talk = _TalkPhrases(tokenise_words(episode.text[start:end]) for start, end in bounds)
    return [
        [*talk.titles(tokenise_words(episode.text[start:end])), _opening_words(episode.text[start:end])]
        for start, end in bounds
    ]


class _TalkPhrases:
    def __init__(self, chapters: Iterable[Sequence[TitleWord]]) -> None:
        self._counts: Counter[str] = Counter()
        held: Counter[str] = Counter()
        count = 0
        for said in chapters:
            self._counts.update(word.plain for word in said)
            for stretch in iter_word_sets(said):
                held.update(stretch)
                count += 1
        self._total = self._counts.total()
        self._empty = find_stop_words(held, count)

    def titles(self, said: Sequence[TitleWord]) -> list[str]:
        ranked = self._ranked(said)
        first = ranked[:_MAX_OFFERS]
        titles: list[str] = []
        for i, (shown, meant) in enumerate(first):
            # each phrase may lead, with the best one that says something else
            title, used = [shown], set(meant)
            for other, means in ranked if i == 0 else [*ranked[:i], *ranked[i + 1 :]]:
                if len(title) == _MAX_PHRASES:
                    break
                if not any(has_same_stem(word, other_word) for word in used for other_word in means):
                    title.append(other)
                    used |= set(means)
            titles.append(_capitalise_title(", ".join(title)))
        return titles

    def _ranked(self, said: Sequence[TitleWord]) -> list[tuple[str, tuple[str, ...]]]:
        """Phrases with their words that mean something, best first."""
        here = Counter(word.plain for word in said)
        named = here + Counter(
            {word: _OPENING_WEIGHT * n for word, n in Counter(w.plain for w in said[:_OPENING_WORDS]).items()}
        )
        phrases: Counter[tuple[str, ...]] = Counter()
        spellings: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for i, j in self._spans(said):
            phrase = tuple(word.plain for word in said[i:j])
            phrases[phrase] += 1 + (_OPENING_WEIGHT if i < _OPENING_WORDS else 0)
            spellings[phrase][" ".join(word.shown for word in said[i:j])] += 1
        weights = {
            word: self._weight(word, here[word], named[word], len(said)) for phrase in phrases for word in phrase
        }
        scored: list[tuple[float, tuple[str, ...], str]] = []
        for phrase, uses in phrases.items():
            meant = [word for word in phrase if word not in self._empty]
            together = uses / max(named[word] for word in meant)
            score = sum(weights[word] for word in meant) / len(meant) ** _LENGTH_PENALTY * together**_COHESION_WEIGHT
            shown = min(spellings[phrase].items(), key=lambda item: (-item[1], item[0]))[0]
            scored.append((score * (_CAPITAL_WEIGHT if shown != shown.lower() else 1.0), phrase, shown))
        scored.sort(key=lambda item: (-item[0], item[1]))
        return [(shown, tuple(word for word in phrase if word not in self._empty)) for _, phrase, shown in scored]

    def _spans(self, said: Sequence[TitleWord]) -> Iterator[tuple[int, int]]:
        """Phrases that begin and end with a word that means something, hold none twice and one empty word at most."""
        means = [word.plain not in self._empty and len(word.plain) > 1 and not word.plain.isdigit() for word in said]
        for i, begins in enumerate(means):
            if not begins:
                continue
            empty = 0
            for j in range(i, min(i + _MAX_PHRASE_WORDS, len(said))):
                if j > i and (said[j].breaks or any(has_same_stem(said[j].plain, word.plain) for word in said[i:j])):
                    break
                if means[j]:
                    yield i, j + 1
                else:
                    empty += 1
                    if empty > 1:
                        break

    def _weight(self, word: str, here: int, named: int, size: int) -> float:
        """How much more a word is said in a chapter than in the rest of the talk."""
        if word in self._empty:
            return 0.0
        rest = (self._counts[word] - here + 0.5) / (self._total - size + 50)
        return float(named**_FREQUENCY_EXPONENT * math.log1p(named / size / rest))


def _capitalise_title(title: str) -> str:
    return title[:1].upper() + title[1:]


def _opening_words(text: str) -> str:
    """For a chapter without any word that means something: how it begins."""
    first = text[:200].split()[:6]
    return _capitalise_title(" ".join(first).strip(".,;:!? "))
