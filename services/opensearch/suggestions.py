"""Completing what somebody types: how titles are indexed for it, and the search that finds those that fit.

Beside the title as it is stored there are its words, with their beginnings up to `MAX_PREFIX_CHARACTERS` letters as terms of
their own, so that a prefix is one look-up and no walk through the dictionary; and the whole of it in one normal form,
by which equal titles are one. See docs/decisions/0178.

Where frequent queries are kept: one document a query and index, by the index's lineage.

An index that was deleted and made again has another lineage, and is told none of the old one's queries. A write is a
compare-and-swap, so that two API processes lose no count of each other's. See docs/decisions/0179.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from services.index_spec import Generation, IndexNames, IndexSpec
from services.opensearch.client import Call
from services.opensearch.queries import SearchPlan, build_search_body
from services.opensearch.system_indexes import make_index_calls
from services.query.suggest import FORGOTTEN_COUNT, decayed_count, popularity_rank, update_rank

# Letters of a word that are indexed as its beginnings.
MAX_PREFIX_CHARACTERS: Final = 12
# Longer titles are not suggested: nobody reads them in a list.
MAX_TITLE_CHARACTERS: Final = 256
# A word of four letters may have one wrong, one of nine two.
_FUZZINESS: Final = "AUTO:4,9"
_SAME_TITLE: Final = "alike"
# (as many as OpenSearch gives of a group)
_MAX_SAME_TITLE: Final = 100
_ANALYSER: Final = "sparsewell_words"
_NORMALISER: Final = "sparsewell_whole"

Clause = dict[str, Any]

# Case and accents do not count, nor how many spaces stand between words.
SUGGEST_ANALYSIS: Final[dict[str, Any]] = {
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
COMPLETION_FIELDS: Final[dict[str, Any]] = {
    "words": {
        "type": "text",
        "analyzer": _ANALYSER,
        "index_prefixes": {"min_chars": 1, "max_chars": MAX_PREFIX_CHARACTERS},
        "norms": False,
    },
    "whole": {"type": "keyword", "normalizer": _NORMALISER, "ignore_above": MAX_TITLE_CHARACTERS},
}
# The words as they are written, for spelling; without places and lengths, which nothing asks about.
WORDS_FIELD: Final[dict[str, Any]] = {"type": "text", "analyzer": "standard", "index_options": "docs", "norms": False}


def spelling_field(spec: IndexSpec) -> str:
    """The field that has the words of an index as they are written: keyword search's own, where that does not stem."""
    return "lexical" if spec.language == "standard" else "spelling"


def title_suggestions_plan(
    index: str,
    typed: str,
    size: int,
    clauses: Sequence[Clause],
    left_out: Sequence[str],
    timeout: float,
    *,
    fuzzy: bool,
    alike: int = 1,
) -> SearchPlan:
    """The titles that hold each word of `typed`, the last one as far as it goes: first those that begin with it, then
    those that have it in one stretch, then by the alphabet. Equal titles are one, with up to `alike` of the documents
    that have it (`read_same_title_hits`); `timeout` in seconds.

    With `fuzzy`, titles follow whose words differ by a letter, or two of nine.
    """
    fits: Clause = {"bool": {"filter": [typed_words_clause("title", typed), *clauses]}}
    if fuzzy:
        fits["bool"]["filter"][0] = {"bool": {"should": [typed_words_clause("title", typed), _fuzzy(typed)]}}
    better = [
        ({"prefix": {"title.whole": {"value": typed}}}, 4),
        (_stretch(typed), 2),
        (typed_words_clause("title", typed), 1),
    ]
    fits["bool"]["should"] = [{"constant_score": {"filter": clause, "boost": boost}} for clause, boost in better]
    fits["bool"]["filter"].append({"exists": {"field": "title.whole"}})
    if left_out:
        fits["bool"]["must_not"] = [{"ids": {"values": list(left_out)}}]
    search = build_search_body(fits, size, ["title"], timeout)
    equal: Clause = {"field": "title.whole"}
    if alike > 1:
        equal["inner_hits"] = {"name": _SAME_TITLE, "size": min(alike, _MAX_SAME_TITLE), "_source": ["title"]}
    search |= {"collapse": equal, "sort": ["_score", {"title.whole": "asc"}]}
    return SearchPlan(index, search)


def read_same_title_hits(hit: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The documents of one title in an answer to `title_suggestions_plan`."""
    found: Sequence[Mapping[str, Any]] = (
        hit["inner_hits"][_SAME_TITLE]["hits"]["hits"] if "inner_hits" in hit else [hit]
    )
    return found


def typed_words_clause(field: str, typed: str) -> Clause:
    """That a field with `COMPLETION_FIELDS` below it holds each word of `typed`, the last one as far as it goes."""
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
    if not typed[-1:].isspace() and len(tail := typed.rsplit(maxsplit=1)[-1]) <= MAX_PREFIX_CHARACTERS:
        whole, last = typed[: -len(tail)], tail
    clauses: list[Clause] = []
    if whole.strip():
        clauses.append({"match": {"title.words": {"query": whole} | near}})
    if last:
        beginning = {"query": last, "analyzer": _ANALYSER} | near
        clauses.append({"match": {"title.words._index_prefix": beginning}})
    return {"bool": {"filter": clauses}}


_KEYWORD_FIELD: Final = {"type": "keyword"}
_PROPERTIES: Final[dict[str, Any]] = {
    "index": _KEYWORD_FIELD,
    "lineage": _KEYWORD_FIELD,
    "query": {"type": "text", "index": False, "fields": COMPLETION_FIELDS},
    "asked": {"type": "long"},
    "rank": {"type": "double"},
}


@dataclass(frozen=True, slots=True)
class CountedQuery:
    """A query of an index and how often it was asked since it was last written."""

    index: str
    lineage: str
    query: str
    times: int

    @property
    def id(self) -> str:
        # (100 characters have 400 bytes at most, and an id may have 512)
        return f"{self.lineage}.{self.query}"


def make_query_log_calls(names: IndexNames, replicas: int) -> tuple[Call, Call, Call]:
    """Create the index of all queries, as `own_index.make_calls`."""
    return make_index_calls(names.queries, _PROPERTIES, replicas, {"analysis": SUGGEST_ANALYSIS})


def read_query_counts_call(names: IndexNames, some: Sequence[CountedQuery], timeout: float) -> Call:
    """Reads what is stored of some queries, in real time."""
    docs = [{"_index": names.queries, "_id": one.id} for one in some]
    return Call("POST", "/_mget", orjson.dumps({"docs": docs}), timeout=timeout)


def is_query_index_missing(answer: Mapping[str, Any]) -> bool:
    """Whether an answer to `read_query_counts_call` says that there is no such index yet."""
    return any(one.get("error", {}).get("type") == "index_not_found_exception" for one in answer["docs"])


def write_query_counts_call(
    names: IndexNames, some: Sequence[CountedQuery], answer: Mapping[str, Any], now: int, timeout: float
) -> Call:
    """Writes new counts over those in an answer to `read_query_counts_call`, each only if it is still what was read."""
    lines: list[dict[str, Any]] = []
    for one, read in zip(some, answer["docs"], strict=True):
        action: dict[str, Any] = {"_index": names.queries, "_id": one.id, "require_alias": True}
        before: Mapping[str, Any] = {}
        if read.get("found"):
            before = read["_source"]
            action |= {"if_seq_no": read["_seq_no"], "if_primary_term": read["_primary_term"]}
        source = {
            "index": one.index,
            "lineage": one.lineage,
            "query": one.query,
            "asked": before.get("asked", 0) + one.times,
            "rank": update_rank(before.get("rank"), one.times, now),
        }
        lines += [{"index" if before else "create": action}, source]
    body = b"\n".join(map(orjson.dumps, lines)) + b"\n"
    return Call("POST", "/_bulk", body, {"filter_path": "items.*.status"}, timeout=timeout, ndjson=True)


def read_conflicting_queries(some: Sequence[CountedQuery], answer: Mapping[str, Any]) -> list[CountedQuery]:
    """The queries in an answer to `write_query_counts_call` that somebody else has counted meanwhile."""
    statuses = [next(iter(item.values()))["status"] for item in answer["items"]]
    return [one for one, status in zip(some, statuses, strict=True) if status == 409]


def query_suggestions_plan(
    names: IndexNames, generation: Generation, typed: str, size: int, least: int, now: int, timeout: float
) -> SearchPlan:
    """The queries that hold each word of `typed`, or all, those first that are asked most nowadays.

    `least`: so often at least each was asked.
    """
    search = build_search_body(_suggestible_clause(generation, least, now), size, ["query"], timeout)
    if typed:
        search["query"]["bool"]["filter"].append(typed_words_clause("query", typed))
    return SearchPlan(names.queries, search | {"sort": [{"rank": "desc"}]})


def list_queries_call(names: IndexNames, generation: Generation, size: int, now: int) -> Call:
    """All queries that are kept of an index, whether they are suggested or not."""
    search = {
        "query": _suggestible_clause(generation, 1, now),
        "size": size,
        "sort": [{"rank": "desc"}],
        "track_total_hits": True,
    }
    params = {"allow_partial_search_results": "false", "ignore_unavailable": "true"}
    return Call("POST", f"/{names.queries}/_search", orjson.dumps(search), params)


def read_query_list(answer: Mapping[str, Any], now: int) -> dict[str, Any]:
    """What an answer to `list_call` says, for answers."""
    stored = [hit["_source"] for hit in answer["hits"]["hits"]]
    return {
        "total": answer["hits"].get("total", {}).get("value", 0),
        "queries": [
            {"query": one["query"], "asked": one["asked"], "lately": round(decayed_count(one["rank"], now), 2)}
            for one in stored
        ],
    }


def refresh_queries_call(names: IndexNames) -> Call:
    """Makes what was written so far visible to `list_call` and `remove_call`, which are searches."""
    return Call("POST", f"/{names.queries}/_refresh", params={"ignore_unavailable": "true"})


def remove_queries_call(names: IndexNames, index: str, query: str | None = None) -> Call:
    """Removes a query of an index, in the form of `learnable_query`, or all of them, of whatever lineage."""
    clauses: list[Clause] = [{"term": {"index": index}}]
    if query is not None:
        clauses.append({"term": {"query.whole": query}})
    return _delete_queries_call(names, {"bool": {"filter": clauses}})


def copy_queries_call(names: IndexNames, kept_in: str, source: Generation, target: Generation, timeout: float) -> Call:
    """Copies the queries of an index out of another index that holds such, to be those of `target` from now on."""
    script = (
        "ctx._source.index = params.index; ctx._source.lineage = params.lineage;"
        " ctx._id = params.lineage + '.' + ctx._source.query"
    )
    body = {
        "source": {"index": kept_in, "query": {"term": {"lineage": source.lineage}}},
        "dest": {"index": names.queries},
        "script": {"source": script, "params": {"index": target.index, "lineage": target.lineage}},
    }
    return Call("POST", "/_reindex", orjson.dumps(body), {"refresh": "true"}, timeout)


def excess_rank_call(names: IndexNames, lineage: str, most: int) -> Call:
    """Finds the rank of the first query of an index that is one too many."""
    search = {"query": {"term": {"lineage": lineage}}, "from": most, "size": 1, "sort": [{"rank": "desc"}]}
    return Call("POST", f"/{names.queries}/_search", orjson.dumps(search | {"_source": ["rank"]}))


def read_excess_rank(answer: Mapping[str, Any]) -> float | None:
    """The rank in an answer to `excess_rank_call`; None where there is room."""
    hits = answer["hits"]["hits"]
    return float(hits[0]["_source"]["rank"]) if hits else None


def prune_queries_call(names: IndexNames, lineage: str, up_to: float | None, now: int) -> Call:
    """Removes the queries of an index that nobody asks any more, and those up to a rank."""
    least = max(popularity_rank(FORGOTTEN_COUNT, now), -1.0 if up_to is None else up_to)
    old = {"bool": {"filter": [{"term": {"lineage": lineage}}, {"range": {"rank": {"lte": least}}}]}}
    return _delete_queries_call(names, old)


def _suggestible_clause(generation: Generation, least: int, now: int) -> Clause:
    clauses = [
        {"term": {"lineage": generation.lineage}},
        {"range": {"asked": {"gte": least}}},
        {"range": {"rank": {"gt": popularity_rank(FORGOTTEN_COUNT, now)}}},
    ]
    return {"bool": {"filter": clauses}}


def _delete_queries_call(names: IndexNames, query: Clause) -> Call:
    params = {"conflicts": "proceed", "refresh": "true", "ignore_unavailable": "true", "filter_path": "deleted"}
    return Call("POST", f"/{names.queries}/_delete_by_query", orjson.dumps({"query": query}), params)
