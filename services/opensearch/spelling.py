"""Asking an index for words that are near those of a query, and which of them documents have that may be found."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from services.opensearch.queries import body, filtered
from services.spelling import SHORTEST, Unknown

Clause = dict[str, Any]

# Words of one query that are looked up, and terms near each of them.
MOST_WORDS: Final = 10
_NEAR: Final = 8
# What may be one word or more to the engine, which passes over shorter ones; a long run is several.
_LONG: Final = re.compile(rf"\w{{{SHORTEST},40}}")


def near_body(field: str, text: str, timeout: float) -> dict[str, Any]:
    """A search for nothing that looks up the terms near each word of a text that the field does not have.

    One letter may be wrong, or two behind the first. `timeout` in seconds. The first `MOST_WORDS` words that are long
    enough are looked up: each is a walk through the dictionary, which no timeout ends.
    """
    term = {"field": field, "suggest_mode": "missing", "size": _NEAR, "shard_size": 5 * _NEAR}
    term |= {"prefix_length": 0, "min_word_length": SHORTEST, "max_edits": 2}
    words = {"text": _beginning(text), "words": {"term": term}}
    return body({"match_none": {}}, 0, False, timeout) | {"suggest": words}


def read_near(answer: Mapping[str, Any], text: str) -> list[Unknown]:
    """The words in an answer to `near_body` that have others near, the first `MOST_WORDS` of them."""
    places = _characters(text)
    found = []
    for word in answer["suggest"]["words"]:
        near = tuple(option["text"] for option in word["options"])
        if near:
            start, end = places[word["offset"]], places[word["offset"] + word["length"]]
            found.append(Unknown(word["text"], start, end, near))
    return found[:MOST_WORDS]


def merged(several: Iterable[Sequence[Unknown]]) -> list[Unknown]:
    """The words of one query as several indexes know them."""
    found: dict[int, Unknown] = {}
    for word in (word for some in several for word in some):
        known = found.get(word.start)
        near = word.near if known is None else tuple(dict.fromkeys(known.near + word.near))
        found[word.start] = Unknown(word.term, word.start, word.end, near)
    return [found[start] for start in sorted(found)][:MOST_WORDS]


def documents_body(
    field: str, terms: Sequence[str], clauses: Sequence[Clause], left_out: Sequence[str], timeout: float
) -> dict[str, Any]:
    """A search that counts for each term the documents that may be found."""
    search = body(filtered({"terms": {field: list(terms)}}, clauses, left_out), 0, False, timeout)
    each = {str(at): {"term": {field: term}} for at, term in enumerate(terms)}
    return search | {"aggs": {"terms": {"filters": {"filters": each}}}}


def read_documents(answer: Mapping[str, Any], terms: Sequence[str]) -> dict[str, int]:
    """The counts in an answer to `documents_body`."""
    counted = answer["aggregations"]["terms"]["buckets"]
    return {term: counted[str(at)]["doc_count"] for at, term in enumerate(terms)}


def _beginning(text: str) -> str:
    beyond = next(islice(_LONG.finditer(text), MOST_WORDS, None), None)
    return text if beyond is None else text[: beyond.start()]


def _characters(text: str) -> list[int]:
    """The number of the character at each UTF-16 unit of a text, its end included: Java counts units."""
    found: list[int] = []
    for number, character in enumerate(text):
        found += [number] * (1 + (character > "\uffff"))
    return [*found, len(text)]
