"""Which words of a text matched: pieces of the sparse list and terms of the keyword list as stretches of it. Pure.

All offsets count characters (code points), the end exclusive.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from services.opensearch.analysis import Terms, Word

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")
_SPACE = re.compile(r"\s+")
# A piece is widened by so many characters at most: a megabyte of letters is no word.
_LONGEST = 100

ListName = Literal["sparse", "lexical"]


@dataclass(frozen=True, slots=True)
class Match:
    """What a piece or a term added to the score of its list. `id` is the piece's, None for a term."""

    list: ListName
    piece: str
    contribution: float
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text and what matched there, largest contribution first."""

    start: int
    end: int
    matches: tuple[Match, ...]


def piece_spans(text: str, pieces: Iterable[tuple[int, int, int]], matches: Mapping[int, Match]) -> list[Span]:
    """The words of `text` of which some piece matched, whole; `pieces` are (id, start, end) of all its pieces."""
    found = []
    for i, start, end in pieces:
        match = matches.get(i)
        if match is not None and (around := _whole_word(text, start, end)) is not None:
            found.append(Span(*around, (match,)))
    return found


def term_spans(words: Iterable[Word], terms: Terms, matches: Mapping[str, Match]) -> list[Span]:
    """The stretches of a text of which the analyser made a term that matched."""
    found = []
    for word in words:
        for term in terms.get(word.text, ()):
            match = matches.get(term.text)
            if match is not None:
                found.append(Span(word.start + term.start, word.start + term.end, (match,)))
    return found


def joined(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, those that overlap as one, each match once. So a word that both lists found is one span."""
    result: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if result and span.start < result[-1].end:
            last = result.pop()
            matches = sorted({*last.matches, *span.matches}, key=lambda match: (-match.contribution, match.list))
            result.append(Span(last.start, max(last.end, span.end), tuple(matches)))
        else:
            result.append(span)
    return result


def best_stretch(text: str, spans: Sequence[Span], characters: int) -> tuple[int, int]:
    """The stretch of at most `characters` that shows most of what matched, start and end.

    Each list counts as much as the other and each match once. What room is left goes before it, from where a
    sentence begins, and behind it.
    """
    if len(text) <= characters:
        return 0, len(text)
    shares = _shares(spans)
    best, first, last = 0.0, 0, 0
    for at, span in enumerate(spans):
        value, seen = 0.0, set[Match]()
        for other in spans[at:]:
            if other.end - span.start > characters:
                break
            value += sum(shares[match] for match in other.matches if match not in seen)
            seen.update(other.matches)
            if value > best + 1e-9:
                best, first, last = value, span.start, other.end
    begin = _beginning(text, max(0, last - characters), first)
    return begin, _ending(text, max(last, begin), min(len(text), begin + characters))


def _whole_word(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The piece with the letters, digits and marks around it; of a piece of white space nothing is left."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start == end:
        return None
    if _in_word(text[start]):
        earliest = max(0, start - _LONGEST)
        while start > earliest and _in_word(text[start - 1]):
            start -= 1
    latest = min(len(text), end + _LONGEST)
    while end < latest and (_is_mark(text[end]) or (_in_word(text[end - 1]) and _in_word(text[end]))):
        end += 1
    return start, end


def _in_word(character: str) -> bool:
    """Letters and digits of scripts that put spaces between words; others have no end of a word that one could see."""
    return (character.isalnum() or _is_mark(character)) and not _unspaced(character)


def _is_mark(character: str) -> bool:
    return character > "\u02ff" and unicodedata.category(character)[0] == "M"


def _unspaced(character: str) -> bool:
    """Thai and Lao, Myanmar, Khmer; kana and Han with their extensions."""
    return (
        "\u0e00" <= character < "\u0f00"
        or "\u1000" <= character < "\u10a0"
        or "\u1780" <= character < "\u1800"
        or "\u2e80" <= character < "\ua000"
        or "\uf900" <= character < "\ufb00"
        or "\U0001b000" <= character < "\U0001b170"
        or "\U00020000" <= character < "\U00040000"
    )


def _shares(spans: Iterable[Span]) -> dict[Match, float]:
    """What each match is of all that matched of its list in these spans."""
    every = {match for span in spans for match in span.matches}
    totals: dict[str, float] = {}
    for match in every:
        totals[match.list] = totals.get(match.list, 0.0) + match.contribution
    return {match: match.contribution / totals[match.list] if totals[match.list] > 0 else 0.0 for match in every}


def _beginning(text: str, earliest: int, latest: int) -> int:
    """The last beginning of a sentence or line between two places, else of a word in their second half."""
    sentences = [match.end() for match in _SENTENCE.finditer(text, earliest, latest)]
    if sentences or earliest == 0:
        return sentences[-1] if sentences else 0
    word = _SPACE.search(text, (earliest + latest) // 2, latest)
    return word.end() if word else latest


def _ending(text: str, earliest: int, latest: int) -> int:
    """The last end of a word between two places, else the second of them."""
    if latest == len(text) or text[latest].isspace():
        return latest
    gap = max(text.rfind(" ", earliest, latest), text.rfind("\n", earliest, latest))
    return latest if gap < 0 else gap
