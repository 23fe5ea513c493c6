"""Completing what somebody types: how titles are indexed for it, and the search that finds those that fit.

Beside the title as it is stored there are its words, with their beginnings up to `MOST_PREFIX` letters as terms of
their own, so that a prefix is one look-up and no walk through the dictionary; and the whole of it in one normal form,
by which equal titles are one. See docs/decisions/0178.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.index_spec import IndexSpec
from services.opensearch.queries import Plan, body

# Letters of a word that are indexed as its beginnings.
MOST_PREFIX: Final = 12
# Longer titles are not suggested: nobody reads them in a list.
LONGEST_TITLE: Final = 256
# A word of four letters may have one wrong, one of nine two.
_FUZZINESS: Final = "AUTO:4,9"
_ALIKE: Final = "alike"
# (as many as OpenSearch gives of a group)
_MOST_ALIKE: Final = 100
_ANALYSER: Final = "sparsewell_words"
_NORMALISER: Final = "sparsewell_whole"

Clause = dict[str, Any]

# Case and accents do not count, nor how many spaces stand between words.
ANALYSIS: Final[dict[str, Any]] = {
    "char_filter": {"sparsewell_spaces": {"type": "pattern_replace", "pattern": "\\s+", "replacement": " "}},
    "analyzer": {_ANALYSER: {"type": "custom", "tokenizer": "standard", "filter": ["lowercase", "asciifolding"]}},
    "normalizer": {
        _NORMALISER: {
            "type": "custom",
            "char_filter": ["sparsewell_spaces"],
            "filter": ["lowercase", "asciifolding", "trim"],
        }
    },
}
# What is indexed of a text that can be suggested, below its own name.
COMPLETED: Final[dict[str, Any]] = {
    "words": {
        "type": "text",
        "analyzer": _ANALYSER,
        "index_prefixes": {"min_chars": 1, "max_chars": MOST_PREFIX},
        "norms": False,
    },
    "whole": {"type": "keyword", "normalizer": _NORMALISER, "ignore_above": LONGEST_TITLE},
}
# The words as they are written, for spelling; without places and lengths, which nothing asks about.
WORDS: Final[dict[str, Any]] = {"type": "text", "analyzer": "standard", "index_options": "docs", "norms": False}


def spelling_field(spec: IndexSpec) -> str:
    """The field that has the words of an index as they are written: keyword search's own, where that does not stem."""
    return "lexical" if spec.language == "standard" else "spelling"


def titles_plan(
    index: str,
    typed: str,
    size: int,
    clauses: Sequence[Clause],
    left_out: Sequence[str],
    timeout: float,
    *,
    fuzzy: bool,
    alike: int = 1,
) -> Plan:
    """The titles that hold each word of `typed`, the last one as far as it goes: first those that begin with it, then
    those that have it in one stretch, then by the alphabet. Equal titles are one, with up to `alike` of the documents
    that have it (`read_alike`); `timeout` in seconds.

    With `fuzzy`, titles follow whose words differ by a letter, or two of nine.
    """
    fits: Clause = {"bool": {"filter": [words_clause("title", typed), *clauses]}}
    if fuzzy:
        fits["bool"]["filter"][0] = {"bool": {"should": [words_clause("title", typed), _fuzzy(typed)]}}
    better = [
        ({"prefix": {"title.whole": {"value": typed}}}, 4),
        (_stretch(typed), 2),
        (words_clause("title", typed), 1),
    ]
    fits["bool"]["should"] = [{"constant_score": {"filter": clause, "boost": boost}} for clause, boost in better]
    fits["bool"]["filter"].append({"exists": {"field": "title.whole"}})
    if left_out:
        fits["bool"]["must_not"] = [{"ids": {"values": list(left_out)}}]
    search = body(fits, size, ["title"], timeout)
    equal: Clause = {"field": "title.whole"}
    if alike > 1:
        equal["inner_hits"] = {"name": _ALIKE, "size": min(alike, _MOST_ALIKE), "_source": ["title"]}
    search |= {"collapse": equal, "sort": ["_score", {"title.whole": "asc"}]}
    return Plan(index, search)


def read_alike(hit: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The documents of one title in an answer to `titles_plan`."""
    found: Sequence[Mapping[str, Any]] = hit["inner_hits"][_ALIKE]["hits"]["hits"] if "inner_hits" in hit else [hit]
    return found


def words_clause(field: str, typed: str) -> Clause:
    """That a field with `COMPLETED` below it holds each word of `typed`, the last one as far as it goes."""
    # (a space ends the last one)
    kind = "match" if typed[-1:].isspace() else "match_bool_prefix"
    return {kind: {f"{field}.words": {"query": typed, "operator": "and"}}}


def _stretch(typed: str) -> Clause:
    kind = "match_phrase" if typed[-1:].isspace() else "match_phrase_prefix"
    return {kind: {"title.words": {"query": typed}}}


def _fuzzy(typed: str) -> Clause:
    """The first letter of a word is always right: a dictionary is not walked through for it."""
    near = {"operator": "and", "fuzziness": _FUZZINESS, "prefix_length": 1}
    whole, last = typed, ""
    if not typed[-1:].isspace() and len(tail := typed.rsplit(maxsplit=1)[-1]) <= MOST_PREFIX:
        whole, last = typed[: -len(tail)], tail
    clauses: list[Clause] = []
    if whole.strip():
        clauses.append({"match": {"title.words": {"query": whole} | near}})
    if last:
        beginning = {"query": last, "analyzer": _ANALYSER} | near
        clauses.append({"match": {"title.words._index_prefix": beginning}})
    return {"bool": {"filter": clauses}}
