"""Text analysis by OpenSearch: stop words, terms, spelling suggestions and document frequencies.

Analysers differ in where they split words, which words they drop and how they stem; Lucene's Porter stemmer differs
from other libraries'. So the terms come from OpenSearch itself (`_analyze`), one request for the distinct words of a
text. The term suggester finds similar terms for misspelt words, and a `filters` aggregation counts the documents that
contain each suggestion. OpenSearch's offsets are UTF-16 units; this module converts them to characters.
See docs/decisions/0170 (highlights) and 0178 (suggestions).
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import orjson

from services.opensearch.client import Call
from services.opensearch.languages import APOSTROPHES, FOLDED_WORDS
from services.opensearch.queries import Clause, add_filter, build_search_body

# OpenSearch's default of `index.analyze.max_token_count`: a request that gives more terms fails.
MAX_ANALYSED_TERMS: Final = 10_000
# Lucene's standard tokeniser splits longer words.
_MAX_TERM_CHARACTERS = 255
# Not all of Unicode's white space: a narrow no-break space joins digits (UAX #29, ExtendNumLet).
_WORD = re.compile(r"[^ \t\n\r]+")
# ASCII punctuation around a word does not change its terms. The underscore does.
_SURROUNDING_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~"
# Limits of a spelling request: words of the query, and similar terms for each word.
MAX_UNKNOWN_WORDS: Final = 10
_MAX_SIMILAR_TERMS: Final = 8
# Shorter words are not corrected: too many terms are close to them.
MIN_WORD_CHARACTERS: Final = 4
# The same beside words that occur. In judged queries, corrections of four letters were wrong ("calc", "docx").
MIN_RARE_CHARACTERS: Final = 5
# A stretch that OpenSearch's term suggester looks up as one word or more; it skips shorter words.
_LOOKED_UP_WORD: Final = re.compile(rf"\w{{{MIN_WORD_CHARACTERS},40}}")

# The English list of NLTK and of the Snowball project without its fragments of words ("don", "ll", "s": "d" is no
# function word in "vitamin d") and without "down". The ends of contractions are not listed.
_ENGLISH_STOP_WORDS: Final = """
    a about above after again against all am an and any are as at be because been before being below between both but by
    can cannot did do does doing during each few for from further had has have having he her here hers herself him
    himself his how i if in into is it its itself just me more most my myself no nor not now of off on once only or
    other our ours ourselves out over own same she should so some such than that the their theirs them themselves then
    there these they this those through to too under until up very was we were what when where which while who whom why
    will with you your yours yourself yourselves aren't couldn't didn't doesn't don't hadn't hasn't haven't isn't
    mightn't mustn't needn't shan't should've shouldn't wasn't weren't won't wouldn't
"""
STOP_WORDS: Final = frozenset(_ENGLISH_STOP_WORDS.split())
# Lucene's standard tokeniser joins letters around an apostrophe, a full stop, a colon and a middle dot (UAX #29,
# MidNumLet and MidLetter): "np.all" is one word. Here a hyphen joins as well, so "check-in" keeps both of its words.
_TOKEN: Final = re.compile(rf"\w+(?:['{APOSTROPHES}.:·-]\w+)*")
_APOSTROPHE: Final = re.compile(f"[{APOSTROPHES}]")


@dataclass(frozen=True, slots=True)
class TextWord:
    """Stretch of a text without white space. `start` is its offset in characters."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class AnalysedTerm:
    """Term that the analyser made from a word. `start` and `end` are character offsets in the word, `end` exclusive."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class UnknownWord:
    """Query word that the index may lack, at characters `start` to `end` (exclusive), and its similar terms."""

    term: str
    start: int
    end: int
    similar_terms: tuple[str, ...]


TermsByWord = Mapping[str, Sequence[AnalysedTerm]]


def blank_stop_words(text: str) -> str:
    """Return an English query with spaces in place of its function words, so that offsets stay valid.

    Documents keep their words. The index's analyser drops Lucene's own 33 stop words, but not the words of questions:
    "how do I", "which of these". A document that repeats them beats a document on the subject. The longer list gained
    .7 points of NDCG@10 over six collections (docs/decisions/0244). Words of capitals stay, unless all of the query is
    in capitals. A query of stop words alone ("to be or not to be") stays as it is.
    """
    mixed = not text.isupper()
    kept = _TOKEN.sub(lambda match: " " * len(match[0]) if _is_stop_word(match[0], mixed=mixed) else match[0], text)
    return kept if _TOKEN.search(kept) else text


def is_stop_word(word: str) -> bool:
    """Return whether a word is a function word, in any case, alone or with the end of a contraction ("what's")."""
    lower = _APOSTROPHE.sub("'", word.lower())
    return lower in STOP_WORDS or lower.partition("'")[0] in STOP_WORDS


def _is_stop_word(word: str, *, mixed: bool) -> bool:
    """As `is_stop_word`; in a text of mixed case, a word of capitals is a name: "WHO guidelines"."""
    return is_stop_word(word) and not (mixed and len(word) > 1 and word.isupper())


def split_on_white_space(text: str) -> list[TextWord]:
    """Split a text on white space, and strip ASCII punctuation around ASCII words."""
    words = []
    for match in _WORD.finditer(text):
        word, start = match[0], match.start()
        if word.isascii():
            stripped = word.lstrip(_SURROUNDING_PUNCTUATION)
            start += len(word) - len(stripped)
            word = stripped.rstrip(_SURROUNDING_PUNCTUATION)
        if word:
            words.append(TextWord(word, start))
    return words


def limit_words(distinct_words: Iterable[str]) -> list[str]:
    """Return the first distinct words that fit one `_analyze` request, by the most terms that each can give."""
    chosen: list[str] = []
    total = 0
    for word in distinct_words:
        total += max_terms(word)
        if total > MAX_ANALYSED_TERMS:
            break
        chosen.append(word)
    return chosen


def max_terms(word: str) -> int:
    """Return the largest number of terms that an analyser which follows UAX #29 makes from a word.

    A run of letters and digits is one term. Every other character may be a term of its own, for example in Chinese and
    Japanese. There may be twice as many: pairs of characters, and folded forms beside words with accents.
    """
    if word.isascii() and word.isalnum():
        return 1 + len(word) // _MAX_TERM_CHARACTERS
    count = run = 0
    for character in word:
        run = run + 1 if _is_joining(character) else 0
        count += run % _MAX_TERM_CHARACTERS <= 1
    return count if all(map(_has_one_form, word)) else 2 * count


def _has_one_form(character: str) -> bool:
    """Tell whether a character surely has no folded form and is in no pair: ASCII, or from Cyrillic to Georgian."""
    return character < "\x80" or "\u0400" <= character < "\u1100"


def _is_joining(character: str) -> bool:
    """Tell whether a letter or digit surely joins its neighbours: below Thai, or in extended Latin and Greek."""
    in_joining_block = character < "\u0e00" or "\u1e00" <= character < "\u2000"
    return in_joining_block and (character.isalpha() or character.isdecimal())


def analyse_terms_call(index: str, field: str, distinct_words: Sequence[str], timeout: float) -> Call:
    """Build the call that analyses distinct words in one text: every analyser splits at a line end."""
    body = orjson.dumps({"field": field, "text": "\n".join(distinct_words)})
    params = {"filter_path": "tokens.token,tokens.start_offset,tokens.end_offset"}
    return Call("POST", f"/{index}/_analyze", body, params, timeout=timeout)


def read_analysed_terms(answer: Mapping[str, Any], distinct_words: Sequence[str]) -> TermsByWord:
    """Read the terms of each word from an answer to `analyse_terms_call`. Words without terms are absent."""
    terms: dict[str, list[AnalysedTerm]] = {}
    word_offsets = iter(_iter_word_offsets(distinct_words))
    word, word_start, next_start, characters = "", 0, -1, None
    for token in answer.get("tokens", ()):
        start, end = token["start_offset"], token["end_offset"]
        while start >= next_start:
            word, word_start, next_start = next(word_offsets)
            characters = None if _is_in_basic_plane(word) else _characters_by_utf16_unit(word)
        start, end = start - word_start, end - word_start
        if characters is not None:
            start, end = characters[start], characters[end]
        terms.setdefault(word, []).append(AnalysedTerm(token["token"], start, end))
    return terms


def _iter_word_offsets(distinct_words: Iterable[str]) -> Iterable[tuple[str, int, int]]:
    """Yield each word with its offset and the next word's in the text of `analyse_terms_call`, in UTF-16 units."""
    offset = 0
    for word in distinct_words:
        units = len(word) if word.isascii() else len(word.encode("utf-16-le")) // 2
        yield word, offset, offset + units + 1
        offset += units + 1


def _is_in_basic_plane(text: str) -> bool:
    """Tell whether each character of a text is one UTF-16 unit."""
    return text.isascii() or max(text) <= "\uffff"


def similar_terms_body(field: str, text: str, timeout: float, *, folds: bool, all_words: bool) -> dict[str, Any]:
    """Build the body of a search that finds similar terms for words of a text. The search matches no documents.

    With `all_words` each word that the field lacks is looked up, and a term may differ from it by two edits. Otherwise,
    longer words are looked up that at most one document in 100 has, for more frequent terms that differ by one edit and
    not in the first letter. With `folds` the words lose their accents; the field has the folded forms as well.
    `timeout` is in seconds. The first `MAX_UNKNOWN_WORDS` words that are long enough are looked up: each one walks the
    term dictionary, which no timeout interrupts.
    """
    size = {"size": _MAX_SIMILAR_TERMS, "shard_size": 5 * _MAX_SIMILAR_TERMS}
    words = (
        {"suggest_mode": "missing", "prefix_length": 0, "min_word_length": MIN_WORD_CHARACTERS, "max_edits": 2}
        if all_words
        else {"suggest_mode": "popular", "prefix_length": 1, "min_word_length": MIN_RARE_CHARACTERS, "max_edits": 1}
    )
    term = {"field": field} | size | words | ({"analyzer": FOLDED_WORDS} if folds else {})
    suggest = {"text": _looked_up_text(text), "words": {"term": term}}
    return build_search_body({"match_none": {}}, 0, False, timeout) | {"suggest": suggest}


def split_unusual_words(text: str, known: Collection[tuple[int, int]]) -> tuple[str, str]:
    """Return the unusual words of a text and its other words, each with spaces in place of the rest.

    A word is unusual if it has only letters, is long enough to correct and is not `known`: (start, end) of the words
    that an encoder has as pieces. These include the common words of its language.
    """
    unusual, others = list(" " * len(text)), list(text)
    for match in _TOKEN.finditer(text):
        start, end = match.span()
        if match[0].isalpha() and end - start >= MIN_RARE_CHARACTERS and (start, end) not in known:
            unusual[start:end], others[start:end] = others[start:end], unusual[start:end]
    return "".join(unusual), "".join(others)


def _looked_up_text(text: str) -> str:
    """Cut a text before the word after the last one that is looked up."""
    first_skipped = next(islice(_LOOKED_UP_WORD.finditer(text), MAX_UNKNOWN_WORDS, None), None)
    return text if first_skipped is None else text[: first_skipped.start()]


def read_similar_terms(answer: Mapping[str, Any], text: str) -> list[UnknownWord]:
    """Read the words that have similar terms from an answer to `similar_terms_body`, at most `MAX_UNKNOWN_WORDS`."""
    characters = _characters_by_utf16_unit(text)
    words = []
    for word in answer["suggest"]["words"]:
        similar = tuple(option["text"] for option in word["options"])
        if similar:
            start, end = characters[word["offset"]], characters[word["offset"] + word["length"]]
            words.append(UnknownWord(word["text"], start, end, similar))
    return words[:MAX_UNKNOWN_WORDS]


def merge_unknown_words(by_index: Iterable[Sequence[UnknownWord]]) -> list[UnknownWord]:
    """Merge the unknown words of one query over several indexes: the similar terms of a word are joined."""
    merged: dict[int, UnknownWord] = {}
    for word in (word for words in by_index for word in words):
        known = merged.get(word.start)
        similar = word.similar_terms
        if known is not None:
            similar = tuple(dict.fromkeys(known.similar_terms + similar))
        merged[word.start] = UnknownWord(word.term, word.start, word.end, similar)
    return [merged[start] for start in sorted(merged)][:MAX_UNKNOWN_WORDS]


def term_counts_body(
    field: str,
    words: Sequence[UnknownWord],
    beside: str,
    clauses: Sequence[Clause],
    excluded_ids: Sequence[str],
    timeout: float,
) -> dict[str, Any]:
    """Build the body of a search that counts the documents of misspelt words and of their similar terms.

    Only documents that pass the filter count. A word counts in each form that lexical search finds for it. A similar
    term counts as it is, and with `beside` only in documents that have a word of this text as well.
    """
    typed, similar = _distinct_terms(words)
    of_word: dict[str, Clause] = {term: {"match": {"lexical": term}} for term in typed}
    others: list[Clause] = [{"match": {"lexical": beside}}] if beside else []
    filters = {f"typed{at}": of_word[term] for at, term in enumerate(typed)} | {
        f"similar{at}": {"bool": {"filter": [{"term": {field: term}}, *others]}} for at, term in enumerate(similar)
    }
    query = {"bool": {"should": [{"terms": {field: similar}}, *of_word.values()]}}
    search = build_search_body(add_filter(query, clauses, excluded_ids), 0, False, timeout)
    return search | {"aggs": {"terms": {"filters": {"filters": filters}}}}


def read_term_counts(answer: Mapping[str, Any], words: Sequence[UnknownWord]) -> tuple[dict[str, int], dict[str, int]]:
    """Read the documents of each word and of each similar term from an answer to `term_counts_body`."""
    buckets = answer["aggregations"]["terms"]["buckets"]
    typed, similar = _distinct_terms(words)
    return (
        {term: buckets[f"typed{at}"]["doc_count"] for at, term in enumerate(typed)},
        {term: buckets[f"similar{at}"]["doc_count"] for at, term in enumerate(similar)},
    )


def _distinct_terms(words: Sequence[UnknownWord]) -> tuple[list[str], list[str]]:
    """Return the distinct terms of words, and of all similar terms."""
    similar = dict.fromkeys(term for word in words for term in word.similar_terms)
    return list(dict.fromkeys(word.term for word in words)), list(similar)


def _characters_by_utf16_unit(text: str) -> list[int]:
    """Return the number of the character at each UTF-16 unit of a text, its end included: Java counts units."""
    numbers: list[int] = []
    for number, character in enumerate(text):
        numbers += [number] * (1 + (character > "\uffff"))
    return [*numbers, len(text)]
