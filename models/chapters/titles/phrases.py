"""Titles out of the words of a chapter: the phrases that are said there, and at its beginning, more than elsewhere."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from models.chapters.engine import Episode
from models.chapters.titles.words import Word, empty_words, same_stem, stretches, words

# Chosen on the tuning half of both sets (docs/decisions/0196-titles-of-chapters.md).
_OPENING = 20  # words of a chapter in which its speaker names what follows,
_NAMED = 8  # where a word counts as so many more
_LONGEST = 5  # words of a phrase
_OFTEN = 1.5  # exponent of how often a word is said
_TOGETHER = 0.2  # of the share of its words' uses that are in the phrase
_MANY = 0.1  # of the number of its words, by which their sum is divided
_CAPITAL = 1.3  # a phrase with a capital letter names something
_PHRASES = 2  # of a title
_OFFERS = 12


def phrase_titles(episode: Episode, bounds: Sequence[tuple[int, int]]) -> list[list[str]]:
    """A `Titler`: for each stretch of the text titles of one or two phrases, best first; last how the text begins.

    Takes time linear in the text.
    """
    # The words of one chapter at a time: those of a long talk, as objects, take a hundred times its text.
    talk = _Talk(words(episode.text[start:end]) for start, end in bounds)
    return [
        [*talk.titles(words(episode.text[start:end])), _beginning(episode.text[start:end])] for start, end in bounds
    ]


class _Talk:
    def __init__(self, chapters: Iterable[Sequence[Word]]) -> None:
        self._counts: Counter[str] = Counter()
        held: Counter[str] = Counter()
        count = 0
        for said in chapters:
            self._counts.update(word.plain for word in said)
            for stretch in stretches(said):
                held.update(stretch)
                count += 1
        self._total = self._counts.total()
        self._empty = empty_words(held, count)

    def titles(self, said: Sequence[Word]) -> list[str]:
        ranked = self._ranked(said)
        first = ranked[:_OFFERS]
        titles: list[str] = []
        for i, (shown, meant) in enumerate(first):
            # each phrase may lead, with the best one that says something else
            title, used = [shown], set(meant)
            for other, means in ranked if i == 0 else [*ranked[:i], *ranked[i + 1 :]]:
                if len(title) == _PHRASES:
                    break
                if not any(same_stem(word, other_word) for word in used for other_word in means):
                    title.append(other)
                    used |= set(means)
            titles.append(_capital(", ".join(title)))
        return titles

    def _ranked(self, said: Sequence[Word]) -> list[tuple[str, tuple[str, ...]]]:
        """Phrases with their words that mean something, best first."""
        here = Counter(word.plain for word in said)
        named = here + Counter({word: _NAMED * n for word, n in Counter(w.plain for w in said[:_OPENING]).items()})
        phrases: Counter[tuple[str, ...]] = Counter()
        spellings: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for i, j in self._spans(said):
            phrase = tuple(word.plain for word in said[i:j])
            phrases[phrase] += 1 + (_NAMED if i < _OPENING else 0)
            spellings[phrase][" ".join(word.shown for word in said[i:j])] += 1
        weights = {
            word: self._weight(word, here[word], named[word], len(said)) for phrase in phrases for word in phrase
        }
        scored: list[tuple[float, tuple[str, ...], str]] = []
        for phrase, uses in phrases.items():
            meant = [word for word in phrase if word not in self._empty]
            together = uses / max(named[word] for word in meant)
            score = sum(weights[word] for word in meant) / len(meant) ** _MANY * together**_TOGETHER
            shown = min(spellings[phrase].items(), key=lambda item: (-item[1], item[0]))[0]
            scored.append((score * (_CAPITAL if shown != shown.lower() else 1.0), phrase, shown))
        scored.sort(key=lambda item: (-item[0], item[1]))
        return [(shown, tuple(word for word in phrase if word not in self._empty)) for _, phrase, shown in scored]

    def _spans(self, said: Sequence[Word]) -> Iterator[tuple[int, int]]:
        """Phrases that begin and end with a word that means something, hold none twice and one empty word at most."""
        means = [word.plain not in self._empty and len(word.plain) > 1 and not word.plain.isdigit() for word in said]
        for i, begins in enumerate(means):
            if not begins:
                continue
            empty = 0
            for j in range(i, min(i + _LONGEST, len(said))):
                if j > i and (said[j].breaks or any(same_stem(said[j].plain, word.plain) for word in said[i:j])):
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
        return float(named**_OFTEN * math.log1p(named / size / rest))


def _capital(title: str) -> str:
    return title[:1].upper() + title[1:]


def _beginning(text: str) -> str:
    """For a chapter without any word that means something: how it begins."""
    first = text[:200].split()[:6]
    return _capital(" ".join(first).strip(".,;:!? "))
