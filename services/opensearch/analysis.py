"""What keyword search makes of a text: the terms of the index's own analyser, and where they stand.

Analysers differ in where words begin and end, in what they drop and in how they stem; Lucene's Porter stemmer is not
the one of other libraries. So nothing is guessed: OpenSearch is asked (`_analyze`) about the distinct words.

Asking an index for words that are near those of a query, and which of them documents have that may be found.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import orjson

from services.opensearch.client import Call
from services.opensearch.queries import add_filter, build_search_body
from services.query.suggest import MIN_WORD_CHARACTERS, UnknownWord

Clause = dict[str, Any]

# Words of one query that are looked up, and terms near each of them.
MAX_UNKNOWN_WORDS: Final = 10
_MAX_SIMILAR_TERMS: Final = 8
# What may be one word or more to the engine, which passes over shorter ones; a long run is several.
_LONG: Final = re.compile(rf"\w{{{MIN_WORD_CHARACTERS},40}}")


def similar_terms_body(field: str, text: str, timeout: float) -> dict[str, Any]:
    """A search for nothing that looks up the terms near each word of a text that the field does not have.

    One letter may be wrong, or two behind the first. `timeout` in seconds. The first `MOST_WORDS` words that are long
    enough are looked up: each is a walk through the dictionary, which no timeout ends.
    """
    term = {"field": field, "suggest_mode": "missing", "size": _MAX_SIMILAR_TERMS, "shard_size": 5 * _MAX_SIMILAR_TERMS}
    term |= {"prefix_length": 0, "min_word_length": MIN_WORD_CHARACTERS, "max_edits": 2}
    words = {"text": _beginning(text), "words": {"term": term}}
    return build_search_body({"match_none": {}}, 0, False, timeout) | {"suggest": words}


def read_similar_terms(answer: Mapping[str, Any], text: str) -> list[UnknownWord]:
    """The words in an answer to `similar_terms_body` that have others near, the first `MOST_WORDS` of them."""
    places = _spelling_characters(text)
    found = []
    for word in answer["suggest"]["words"]:
        near = tuple(option["text"] for option in word["options"])
        if near:
            start, end = places[word["offset"]], places[word["offset"] + word["length"]]
            found.append(UnknownWord(word["text"], start, end, near))
    return found[:MAX_UNKNOWN_WORDS]


def merge_unknown_words(several: Iterable[Sequence[UnknownWord]]) -> list[UnknownWord]:
    """The words of one query as several indexes know them."""
    found: dict[int, UnknownWord] = {}
    for word in (word for some in several for word in some):
        known = found.get(word.start)
        near = word.near if known is None else tuple(dict.fromkeys(known.near + word.near))
        found[word.start] = UnknownWord(word.term, word.start, word.end, near)
    return [found[start] for start in sorted(found)][:MAX_UNKNOWN_WORDS]


def term_counts_body(
    field: str, terms: Sequence[str], clauses: Sequence[Clause], left_out: Sequence[str], timeout: float
) -> dict[str, Any]:
    """A search that counts for each term the documents that may be found."""
    search = build_search_body(add_filter({"terms": {field: list(terms)}}, clauses, left_out), 0, False, timeout)
    each = {str(at): {"term": {field: term}} for at, term in enumerate(terms)}
    return search | {"aggs": {"terms": {"filters": {"filters": each}}}}


def read_term_counts(answer: Mapping[str, Any], terms: Sequence[str]) -> dict[str, int]:
    """The counts in an answer to `term_counts_body`."""
    counted = answer["aggregations"]["terms"]["buckets"]
    return {term: counted[str(at)]["doc_count"] for at, term in enumerate(terms)}


def _beginning(text: str) -> str:
    beyond = next(islice(_LONG.finditer(text), MAX_UNKNOWN_WORDS, None), None)
    return text if beyond is None else text[: beyond.start()]


def _spelling_characters(text: str) -> list[int]:
    """The number of the character at each UTF-16 unit of a text, its end included: Java counts units."""
    found: list[int] = []
    for number, character in enumerate(text):
        found += [number] * (1 + (character > "\uffff"))
    return [*found, len(text)]


# OpenSearch's default of `index.analyze.max_token_count`: beyond it the request is an error.
MAX_ANALYSED_TERMS: Final = 10_000
# Lucene's standard tokeniser cuts longer words.
_MAX_TERM_CHARACTERS = 255
# Not at every white space that Unicode has: a narrow no-break space joins digits (UAX #29, ExtendNumLet).
_STRETCH = re.compile(r"[^ \t\n\r]+")
# What an ASCII word loses at its ends without any effect on its terms: all punctuation but the underscore.
_SURROUNDING_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~"


@dataclass(frozen=True, slots=True)
class TextWord:
    """A stretch of a text without white space: `text`, from the character `start` on."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class AnalysedTerm:
    """A term of the analyser, from the character `start` of its word to before `end`."""

    text: str
    start: int
    end: int


TermsByWord = Mapping[str, Sequence[AnalysedTerm]]


def split_on_white_space(text: str) -> list[TextWord]:
    """The stretches of a text between white space, without the punctuation around those of ASCII."""
    found = []
    for match in _STRETCH.finditer(text):
        word, start = match[0], match.start()
        if word.isascii():
            bare = word.lstrip(_SURROUNDING_PUNCTUATION)
            start += len(word) - len(bare)
            word = bare.rstrip(_SURROUNDING_PUNCTUATION)
        if word:
            found.append(TextWord(word, start))
    return found


def limit_words(distinct: Iterable[str]) -> list[str]:
    """The first of some distinct words: as many as one request may ask about, by the most terms that each can have."""
    chosen: list[str] = []
    total = 0
    for word in distinct:
        total += max_terms(word)
        if total > MAX_ANALYSED_TERMS:
            break
        chosen.append(word)
    return chosen


def max_terms(word: str) -> int:
    """No analyser that follows UAX #29 makes more terms of a word: a run of letters and digits is one, every other
    character may be one of its own, as those of Chinese and Japanese are."""
    if word.isascii() and word.isalnum():
        return 1 + len(word) // _MAX_TERM_CHARACTERS
    count = run = 0
    for character in word:
        run = run + 1 if _is_joining(character) else 0
        count += run % _MAX_TERM_CHARACTERS <= 1
    return count


def _is_joining(character: str) -> bool:
    """Surely a letter or digit that is no term of its own: below Thai, or in the blocks of more Latin and Greek."""
    known = character < "\u0e00" or "\u1e00" <= character < "\u2000"
    return known and (character.isalpha() or character.isdecimal())


def analyse_terms_call(index: str, field: str, distinct: Sequence[str], timeout: float) -> Call:
    """Asks for the terms of distinct words, in one text: every analyser divides at a line's end."""
    asked = orjson.dumps({"field": field, "text": "\n".join(distinct)})
    wanted = {"filter_path": "tokens.token,tokens.start_offset,tokens.end_offset"}
    return Call("POST", f"/{index}/_analyze", asked, wanted, timeout=timeout)


def read_analysed_terms(answer: Mapping[str, Any], distinct: Sequence[str]) -> TermsByWord:
    """The terms of each word in an answer to `analyse_terms_call`; a word without any is not named."""
    found: dict[str, list[AnalysedTerm]] = {}
    beginnings = iter(_iter_word_offsets(distinct))
    word, base, after, characters = "", 0, -1, None
    for token in answer.get("tokens", ()):
        start, end = token["start_offset"], token["end_offset"]
        while start >= after:
            word, base, after = next(beginnings)
            characters = _characters(word)
        start, end = start - base, end - base
        if characters is not None:
            start, end = characters[start], characters[end]
        found.setdefault(word, []).append(AnalysedTerm(token["token"], start, end))
    return found


def _iter_word_offsets(distinct: Iterable[str]) -> Iterable[tuple[str, int, int]]:
    """Each word with the offset at which it begins in the text of `analyse_terms_call` and that of the next, as Java counts."""
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
