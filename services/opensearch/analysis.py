"""What keyword search makes of a text: the terms of the index's own analyser, and where they stand.

Analysers differ in where words begin and end, in what they drop and in how they stem; Lucene's Porter stemmer is not
the one of other libraries. So nothing is guessed: OpenSearch is asked (`_analyze`) about the distinct words.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from services.opensearch.client import Call

# OpenSearch's default of `index.analyze.max_token_count`: beyond it the request is an error.
MOST_TERMS: Final = 10_000
# Lucene's standard tokeniser cuts longer words.
_LONGEST_TERM = 255
# Not at every white space that Unicode has: a narrow no-break space joins digits (UAX #29, ExtendNumLet).
_STRETCH = re.compile(r"[^ \t\n\r]+")
# What an ASCII word loses at its ends without any effect on its terms: all punctuation but the underscore.
_AROUND = "!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~"


@dataclass(frozen=True, slots=True)
class Word:
    """A stretch of a text without white space: `text`, from the character `start` on."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Term:
    """A term of the analyser, from the character `start` of its word to before `end`."""

    text: str
    start: int
    end: int


Terms = Mapping[str, Sequence[Term]]


def words(text: str) -> list[Word]:
    """The stretches of a text between white space, without the punctuation around those of ASCII."""
    found = []
    for match in _STRETCH.finditer(text):
        word, start = match[0], match.start()
        if word.isascii():
            bare = word.lstrip(_AROUND)
            start += len(word) - len(bare)
            word = bare.rstrip(_AROUND)
        if word:
            found.append(Word(word, start))
    return found


def affordable(distinct: Iterable[str]) -> list[str]:
    """The first of some distinct words: as many as one request may ask about, by the most terms that each can have."""
    chosen: list[str] = []
    total = 0
    for word in distinct:
        total += most_terms(word)
        if total > MOST_TERMS:
            break
        chosen.append(word)
    return chosen


def most_terms(word: str) -> int:
    """No analyser that follows UAX #29 makes more terms of a word: a run of letters and digits is one, every other
    character may be one of its own, as those of Chinese and Japanese are."""
    if word.isascii() and word.isalnum():
        return 1 + len(word) // _LONGEST_TERM
    count = run = 0
    for character in word:
        run = run + 1 if _joins(character) else 0
        count += run % _LONGEST_TERM <= 1
    return count


def _joins(character: str) -> bool:
    """Surely a letter or digit that is no term of its own: below Thai, or in the blocks of more Latin and Greek."""
    known = character < "\u0e00" or "\u1e00" <= character < "\u2000"
    return known and (character.isalpha() or character.isdecimal())


def terms_call(index: str, field: str, distinct: Sequence[str], timeout: float) -> Call:
    """Asks for the terms of distinct words, in one text: every analyser divides at a line's end."""
    asked = orjson.dumps({"field": field, "text": "\n".join(distinct)})
    wanted = {"filter_path": "tokens.token,tokens.start_offset,tokens.end_offset"}
    return Call("POST", f"/{index}/_analyze", asked, wanted, timeout=timeout)


def read_terms(answer: Mapping[str, Any], distinct: Sequence[str]) -> Terms:
    """The terms of each word in an answer to `terms_call`; a word without any is not named."""
    found: dict[str, list[Term]] = {}
    beginnings = iter(_beginnings(distinct))
    word, base, after, characters = "", 0, -1, None
    for token in answer.get("tokens", ()):
        start, end = token["start_offset"], token["end_offset"]
        while start >= after:
            word, base, after = next(beginnings)
            characters = _characters(word)
        start, end = start - base, end - base
        if characters is not None:
            start, end = characters[start], characters[end]
        found.setdefault(word, []).append(Term(token["token"], start, end))
    return found


def _beginnings(distinct: Iterable[str]) -> Iterable[tuple[str, int, int]]:
    """Each word with the offset at which it begins in the text of `terms_call` and that of the next, as Java counts."""
    at = 0
    for word in distinct:
        units = len(word) if word.isascii() else len(word.encode("utf-16-le")) // 2
        yield word, at, at + units + 1
        at += units + 1


def _characters(word: str) -> list[int] | None:
    """The number of the character at each UTF-16 unit of a word, its end included; None where they are the same."""
    if word.isascii() or max(word) <= "\uffff":
        return None
    found: list[int] = []
    for number, character in enumerate(word):
        found += [number] * (1 + (character > "\uffff"))
    return [*found, len(word)]
