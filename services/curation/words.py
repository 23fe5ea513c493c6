"""Words of a query as rules know them, and the phrases of rules that a query contains."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

_T = TypeVar("_T")

# Scripts without spaces: each character counts as a word, as it does for WordPiece and for Lucene's standard tokeniser.
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# A stop or an apostrophe within a word does not end it (U.S., don't): Unicode's word boundaries (UAX 29), which Lucene
# follows, so that a query that is cut where words end has the same terms as before.
_WORD = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+(?:['’.:][^\W{_ALONE}]+)*")
_POSSESSIVE = re.compile(r"['’]s$")


class Word(NamedTuple):
    """A word as it is compared, and where it stands in the text (characters, end exclusive)."""

    text: str
    start: int
    end: int


def words(text: str) -> list[Word]:
    """The words of a text: compatible forms and cases made equal, without a possessive 's. Accents stay."""
    return [Word(_normal(found[0]), found.start(), found.end()) for found in _WORD.finditer(text)]


def key(text: str) -> tuple[str, ...]:
    """What makes two texts the same for a rule: their words in order."""
    return tuple([_normal(word) for word in _WORD.findall(text)])


def _normal(word: str) -> str:
    if word.isascii():
        plain = word.lower()
        return plain[:-2] if plain.endswith("'s") else plain
    return _POSSESSIVE.sub("", unicodedata.normalize("NFKC", word).casefold())


class Stretch(NamedTuple, Generic[_T]):
    """Words `start` to `end` (exclusive) of a query, and what is held under them."""

    start: int
    end: int
    held: Sequence[_T]


class Phrases(Generic[_T]):
    """Values under phrases. Looking costs a step a word and one more for each length that a phrase can have there."""

    def __init__(self, items: Iterable[tuple[tuple[str, ...], _T]]) -> None:
        self._held: dict[tuple[str, ...], list[_T]] = defaultdict(list)
        lengths: dict[str, set[int]] = defaultdict(set)
        for phrase, value in items:
            self._held[phrase].append(value)
            lengths[phrase[0]].add(len(phrase))
        self._lengths = {first: sorted(each, reverse=True) for first, each in lengths.items()}

    def at(self, text: Sequence[str]) -> Sequence[_T]:
        """What is held under exactly these words."""
        return self._held.get(tuple(text), ())

    def longest(self, text: Sequence[str]) -> list[Stretch[_T]]:
        """Stretches that do not overlap: from left to right, the longest phrase that begins there."""
        found = []
        at = 0
        while at < len(text):
            here = next(self._from(text, at), None)
            if here is None:
                at += 1
            else:
                found.append(here)
                at = here.end
        return found

    def everywhere(self, text: Sequence[str]) -> list[Stretch[_T]]:
        """Every phrase that the words contain, wherever it stands."""
        return [here for at in range(len(text)) for here in self._from(text, at)]

    def _from(self, text: Sequence[str], at: int) -> Iterator[Stretch[_T]]:
        for length in self._lengths.get(text[at], ()):
            held = self._held.get(tuple(text[at : at + length]))
            if held and at + length <= len(text):
                yield Stretch(at, at + length, held)
