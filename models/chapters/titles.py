"""Chapter titles: checks of proposed titles, and titles of phrases from the chapter.

`TitleVocabulary` checks whether a title's words occur in the chapter. `phrase_titles` offers phrases that occur in a
chapter, and near its start, more often than in the rest of the talk; its constants are tuned
(`docs/decisions/0196`). Words are compared by their first letters, because stemmers depend on the language.
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

MAX_TITLE_CHARACTERS = 120
# A word, or a sign that ends a phrase. C++, node.js, TCP/IP, O'Brien and front-end are one word each.
_TOKEN = re.compile(r"([^\W_]+(?:['.+#&/-][^\W_]+|[+#]+)*)|[.!?…;:,\n()\[\]\"“”«»–—。、！？]")
# A word, or a sign of a script without spaces between words (kana, Han, Thai) or with endings on words (Hangul).
_UNSPACED_SCRIPTS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f"
_WORD = re.compile(rf"[{_UNSPACED_SCRIPTS}]|[^\W_{_UNSPACED_SCRIPTS}]+")
_UNSPACED_SIGN = re.compile(rf"[{_UNSPACED_SCRIPTS}]")
# Words are compared by four letters, so that inflected forms match ("parsing", "parsed"). When half of a title's words
# may be new, the check refuses 4 % and 18 % of people's titles in the two sets, and 80 % and 83 % of the titles of
# other chapters.
_COMPARED_LETTERS = 4
_MAX_NEW_SHARE = 0.5
# A word in more than this share of the talk's windows is a stop word, in any language. Fewer windows than
# `_MIN_WINDOWS` give no statistics.
_WINDOW_WORDS = 100
_MIN_WINDOWS = 5
_MAX_WINDOW_SHARE = 0.6
_STEM_LETTERS = 5  # of two words with the same stem
# Chosen on the tuning half of both sets (docs/decisions/0196).
_OPENING_WORDS = 20  # the first words of a chapter, in which a speaker often names the topic
_OPENING_WEIGHT = 8  # additional count of a word there
_MAX_PHRASE_WORDS = 5
_FREQUENCY_EXPONENT = 1.5  # of a word's count
_COHESION_WEIGHT = 0.2  # exponent of the share of its words' uses that are in the phrase
_LENGTH_PENALTY = 0.1  # exponent of the number of words that divides the sum of their weights
_CAPITAL_WEIGHT = 1.3  # factor for phrases with a capital letter, which are often names
_MAX_PHRASES = 2  # in a title
_MAX_CANDIDATES = 12


def clean_title(title: str, longest: int | None = MAX_TITLE_CHARACTERS) -> str:
    """Return the title on one line, without control characters, truncated between words at `longest` characters."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in title).split())
    if longest is None or len(line) <= longest:
        return line
    kept = line[: longest - 1]
    if " " in kept[longest // 2 :]:
        kept = kept[: kept.rindex(" ")]
    return kept.rstrip() + "…"


def has_letter_or_digit(title: str) -> bool:
    """Check for a letter or digit: signs alone are not a title."""
    return any(sign.isalnum() for sign in title)


class TitleVocabulary:
    """The words that a chapter's title may use: the words of its text and of the talk's title and description."""

    def __init__(self, episode: Episode, start: int, end: int) -> None:
        text = f"{episode.text[start:end]} {episode.title} {episode.description}"
        self._stems = {word[:_COMPARED_LETTERS] for word in _WORD.findall(text.lower())}

    def holds(self, title: str) -> bool:
        """Check that at most half of the title's content words are new. A title without content words passes."""
        new = [
            word[:_COMPARED_LETTERS] not in self._stems
            for word in _WORD.findall(title.lower())
            if _is_content_word(word)
        ]
        return sum(new) <= _MAX_NEW_SHARE * len(new)


def _is_content_word(word: str) -> bool:
    return (len(word) > 1 and word not in load_common_words()) or _UNSPACED_SIGN.match(word) is not None


@cache
def load_common_words() -> frozenset[str]:
    """Load English words that no title begins or ends with."""
    return frozenset((Path(__file__).parent / "common_words.txt").read_text(encoding="utf-8").split())


def phrase_titles(episode: Episode, bounds: Sequence[tuple[int, int]]) -> list[list[str]]:
    """Offer titles for each span of the text: titles of one or two phrases, best first, then the opening words.

    This function is a `Titler`. It takes time linear in the text.
    """
    # Only one chapter is processed at a time, because the word objects of a long talk take a hundred times the memory
    # of its text.
    talk = _TalkPhrases(tokenise_words(episode.text[start:end]) for start, end in bounds)
    return [
        [*talk.titles(tokenise_words(episode.text[start:end])), _opening_words(episode.text[start:end])]
        for start, end in bounds
    ]


class _TalkPhrases:
    """Word statistics of a talk, which rank the phrases of its chapters."""

    def __init__(self, chapters: Iterable[Sequence[TitleWord]]) -> None:
        self._counts: Counter[str] = Counter()
        window_counts: Counter[str] = Counter()
        count = 0
        for words in chapters:
            self._counts.update(word.plain for word in words)
            for window in iter_word_sets(words):
                window_counts.update(window)
                count += 1
        self._total = self._counts.total()
        self._stop_words = find_stop_words(window_counts, count)

    def titles(self, words: Sequence[TitleWord]) -> list[str]:
        ranked = self._ranked(words)
        titles: list[str] = []
        for i, (phrase, content) in enumerate(ranked[:_MAX_CANDIDATES]):
            # Each phrase leads a title, followed by the best phrase with other words.
            title, used = [phrase], set(content)
            for other, other_content in ranked if i == 0 else [*ranked[:i], *ranked[i + 1 :]]:
                if len(title) == _MAX_PHRASES:
                    break
                if not any(has_same_stem(word, other_word) for word in used for other_word in other_content):
                    title.append(other)
                    used |= set(other_content)
            titles.append(_capitalise_title(", ".join(title)))
        return titles

    def _ranked(self, words: Sequence[TitleWord]) -> list[tuple[str, tuple[str, ...]]]:
        """Rank the phrases of a chapter, best first, with their content words."""
        counts = Counter(word.plain for word in words)
        boosted = counts + Counter(
            {word: _OPENING_WEIGHT * n for word, n in Counter(w.plain for w in words[:_OPENING_WORDS]).items()}
        )
        phrases: Counter[tuple[str, ...]] = Counter()
        spellings: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for i, j in self._spans(words):
            phrase = tuple(word.plain for word in words[i:j])
            phrases[phrase] += 1 + (_OPENING_WEIGHT if i < _OPENING_WORDS else 0)
            spellings[phrase][" ".join(word.shown for word in words[i:j])] += 1
        weights = {
            word: self._weight(word, counts[word], boosted[word], len(words)) for phrase in phrases for word in phrase
        }
        scored: list[tuple[float, tuple[str, ...], str]] = []
        for phrase, uses in phrases.items():
            content = [word for word in phrase if word not in self._stop_words]
            cohesion = uses / max(boosted[word] for word in content)
            score = sum(weights[word] for word in content) / len(content) ** _LENGTH_PENALTY
            score *= cohesion**_COHESION_WEIGHT
            shown = min(spellings[phrase].items(), key=lambda item: (-item[1], item[0]))[0]
            scored.append((score * (_CAPITAL_WEIGHT if shown != shown.lower() else 1.0), phrase, shown))
        scored.sort(key=lambda item: (-item[0], item[1]))
        return [(shown, tuple(word for word in phrase if word not in self._stop_words)) for _, phrase, shown in scored]

    def _spans(self, words: Sequence[TitleWord]) -> Iterator[tuple[int, int]]:
        """Yield spans that begin and end with content words, without repetition and with at most one stop word."""
        is_content = [
            word.plain not in self._stop_words and len(word.plain) > 1 and not word.plain.isdigit() for word in words
        ]
        for i, begins in enumerate(is_content):
            if not begins:
                continue
            stop_words = 0
            for j in range(i, min(i + _MAX_PHRASE_WORDS, len(words))):
                if j > i and (words[j].breaks or any(has_same_stem(words[j].plain, word.plain) for word in words[i:j])):
                    break
                if is_content[j]:
                    yield i, j + 1
                else:
                    stop_words += 1
                    if stop_words > 1:
                        break

    def _weight(self, word: str, count: int, boosted: int, size: int) -> float:
        """Weigh how much more often a word occurs in a chapter than in the rest of the talk."""
        if word in self._stop_words:
            return 0.0
        rest = (self._counts[word] - count + 0.5) / (self._total - size + 50)
        return float(boosted**_FREQUENCY_EXPONENT * math.log1p(boosted / size / rest))


def _capitalise_title(title: str) -> str:
    return title[:1].upper() + title[1:]


def _opening_words(text: str) -> str:
    """Return the first words of a chapter, the title of a chapter without content words."""
    first = text[:200].split()[:6]
    return _capitalise_title(" ".join(first).strip(".,;:!? "))


class TitleWord(NamedTuple):
    """A word as written and in lower case. `breaks`: a sign before it ends the phrase."""

    shown: str
    plain: str
    breaks: bool


def tokenise_words(text: str) -> list[TitleWord]:
    """Return the words of a text in order."""
    words: list[TitleWord] = []
    breaks = False
    for shown in _TOKEN.findall(text.replace("’", "'")):
        if shown:
            words.append(TitleWord(shown, shown.lower(), breaks))
        breaks = not shown
    return words


def iter_word_sets(words: Sequence[TitleWord]) -> Iterator[set[str]]:
    """Yield the distinct words of each window of 100 words."""
    for first in range(0, len(words), _WINDOW_WORDS):
        yield {word.plain for word in words[first : first + _WINDOW_WORDS]}


def find_stop_words(window_counts: Counter[str], count: int) -> frozenset[str]:
    """Return common English words and words in most windows of the talk.

    `window_counts`: number of windows with each word. `count`: number of windows.
    """
    if count < _MIN_WINDOWS:
        return load_common_words()
    return load_common_words() | {word for word, number in window_counts.items() if number > _MAX_WINDOW_SHARE * count}


def has_same_stem(first: str, second: str) -> bool:
    """Check whether two words have the same first five letters: host and hosting, branches and branching.

    A stemmer would need to know the language.
    """
    letters = min(len(first), len(second), _STEM_LETTERS)
    return letters > 1 and first[:letters] == second[:letters]
