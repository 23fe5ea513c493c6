"""Query suggestions: title completion and the log of frequent queries.

Besides the stored title, each index has the title's words with their prefixes of up to `MAX_PREFIX_CHARACTERS` letters
as terms, so a prefix is one term lookup and no scan of the dictionary; and the whole title in a normal form, which
groups equal titles (docs/decisions/0178). The query log has one document per query and index, keyed by the index's
lineage, so that a recreated index gets none of the old queries. A write is a compare-and-swap: two API processes lose
no counts (docs/decisions/0179).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from services.index_spec import Generation, IndexNames
from services.opensearch.client import Call
from services.opensearch.languages import COMPOSE, COMPOSING, WRITTEN_WORDS
from services.opensearch.queries import Clause, SearchPlan, build_search_body
from services.opensearch.system_indexes import (
    make_index_calls,
)
from services.query.suggest import FORGOTTEN_COUNT, decayed_count, popularity_rank, update_rank

# Longest indexed prefix of a word.
MAX_PREFIX_CHARACTERS: Final = 12
# Longer titles are not suggested: a list of suggestions cannot show them.
MAX_TITLE_CHARACTERS: Final = 256
# Words of 4 letters may differ by one edit, words of 9 letters by two.
_FUZZINESS: Final = "AUTO:4,9"
_SAME_TITLE: Final = "alike"
_MAX_SAME_TITLE: Final = 100  # OpenSearch's limit for inner hits (`index.max_inner_result_window`)
_ANALYSER: Final = "sparsewell_words"
_NORMALISER: Final = "sparsewell_whole"
# Case, accents and the number of spaces between words do not matter.
SUGGEST_ANALYSIS: Final[dict[str, Any]] = {
    "char_filter": COMPOSING
    | {"sparsewell_spaces": {"type": "pattern_replace", "pattern": "\\s+", "replacement": " "}},
    "analyzer": {
        _ANALYSER: {
            "type": "custom",
            "tokenizer": "standard",
            "char_filter": [COMPOSE],
            "filter": ["lowercase", "asciifolding"],
        }
    },
    "normalizer": {
        _NORMALISER: {
            "type": "custom",
            "char_filter": [COMPOSE, "sparsewell_spaces"],
            "filter": ["lowercase", "asciifolding", "trim"],
        }
    },
}
# Subfields of a text that can be suggested.
COMPLETION_FIELDS: Final[dict[str, Any]] = {
    "words": {
        "type": "text",
        "analyzer": _ANALYSER,
        "index_prefixes": {"min_chars": 1, "max_chars": MAX_PREFIX_CHARACTERS},
        "norms": False,
    },
    "whole": {"type": "keyword", "normalizer": _NORMALISER, "ignore_above": MAX_TITLE_CHARACTERS},
}
# The unstemmed words, for spelling; without positions and norms, which no query uses.
WORDS_FIELD: Final[dict[str, Any]] = {
    "type": "text", "analyzer": WRITTEN_WORDS, "index_options": "docs", "norms": False,
}  # fmt: skip
_KEYWORD_FIELD: Final = {"type": "keyword"}
_QUERY_LOG_PROPERTIES: Final[dict[str, Any]] = {
    "index": _KEYWORD_FIELD,
    "lineage": _KEYWORD_FIELD,
    "query": {"type": "text", "index": False, "fields": COMPLETION_FIELDS},
    "asked": {"type": "long"},
    "rank": {"type": "double"},
}


def title_suggestions_plan(
    index: str,
    typed: str,
    size: int,
    clauses: Sequence[Clause],
    excluded_ids: Sequence[str],
    timeout: float,
    *,
    fuzzy: bool,
    alike: int = 1,
) -> SearchPlan:
    """Build the search for titles that contain each typed word, the last one as a prefix.

    Titles that begin with `typed` come first, then titles that contain it as a phrase, then the others; ties are in
    alphabetical order. Equal titles are one hit, with up to `alike` of their documents (`read_same_title_hits`). With
    `fuzzy`, titles follow that differ by edits (`_FUZZINESS`). `timeout` is in seconds.
    """
    query: Clause = {"bool": {"filter": [typed_words_clause("title", typed), *clauses]}}
    if fuzzy:
        query["bool"]["filter"][0] = {"bool": {"should": [typed_words_clause("title", typed), _fuzzy_clause(typed)]}}
    ranked = [
        ({"prefix": {"title.whole": {"value": typed}}}, 4),
        (_phrase_clause(typed), 2),
        (typed_words_clause("title", typed), 1),
    ]
    query["bool"]["should"] = [{"constant_score": {"filter": clause, "boost": boost}} for clause, boost in ranked]
    query["bool"]["filter"].append({"exists": {"field": "title.whole"}})
    if excluded_ids:
        query["bool"]["must_not"] = [{"ids": {"values": list(excluded_ids)}}]
    search = build_search_body(query, size, ["title"], timeout)
    collapse: Clause = {"field": "title.whole"}
    if alike > 1:
        collapse["inner_hits"] = {"name": _SAME_TITLE, "size": min(alike, _MAX_SAME_TITLE), "_source": ["title"]}
    search |= {"collapse": collapse, "sort": ["_score", {"title.whole": "asc"}]}
    return SearchPlan(index, search)


def typed_words_clause(field: str, typed: str) -> Clause:
    """Match texts that contain each word of `typed`, the last one as a prefix. `field` has `COMPLETION_FIELDS`."""
    # a trailing space completes the last word
    kind = "match" if typed[-1:].isspace() else "match_bool_prefix"
    return {kind: {f"{field}.words": {"query": typed, "operator": "and"}}}


def _phrase_clause(typed: str) -> Clause:
    kind = "match_phrase" if typed[-1:].isspace() else "match_phrase_prefix"
    return {kind: {"title.words": {"query": typed}}}


def _fuzzy_clause(typed: str) -> Clause:
    """Match titles whose words differ by edits, but not in the first letter, which would scan the dictionary."""
    options = {"operator": "and", "fuzziness": _FUZZINESS, "prefix_length": 1}
    whole, last = typed, ""
    if not typed[-1:].isspace() and len(tail := typed.rsplit(maxsplit=1)[-1]) <= MAX_PREFIX_CHARACTERS:
        whole, last = typed[: -len(tail)], tail
    clauses: list[Clause] = []
    if whole.strip():
        clauses.append({"match": {"title.words": {"query": whole} | options}})
    if last:
        prefix = {"query": last, "analyzer": _ANALYSER} | options
        clauses.append({"match": {"title.words._index_prefix": prefix}})
    return {"bool": {"filter": clauses}}


def read_same_title_hits(hit: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the documents with the title of a hit from an answer to `title_suggestions_plan`."""
    hits: Sequence[Mapping[str, Any]] = hit["inner_hits"][_SAME_TITLE]["hits"]["hits"] if "inner_hits" in hit else [hit]
    return hits


def query_suggestions_plan(
    names: IndexNames, generation: Generation, typed: str, size: int, least: int, now: int, timeout: float
) -> SearchPlan:
    """Build the search for queries that contain each typed word, or for all queries, the most popular first.

    `least`: the smallest count of a suggested query.
    """
    search = build_search_body(_suggestible_clause(generation, least, now), size, ["query"], timeout)
    if typed:
        search["query"]["bool"]["filter"].append(typed_words_clause("query", typed))
    return SearchPlan(names.queries, search | {"sort": [{"rank": "desc"}]})


def _suggestible_clause(generation: Generation, least: int, now: int) -> Clause:
    clauses = [
        {"term": {"lineage": generation.lineage}},
        {"range": {"asked": {"gte": least}}},
        {"range": {"rank": {"gt": popularity_rank(FORGOTTEN_COUNT, now)}}},
    ]
    return {"bool": {"filter": clauses}}


@dataclass(frozen=True, slots=True)
class CountedQuery:
    """Query of an index, with the number of times it was asked since the last write."""

    index: str
    lineage: str
    query: str
    times: int

    @property
    def id(self) -> str:
        """Id of the query's document."""
        # 100 characters have at most 400 bytes, and an id may have 512
        return f"{self.lineage}.{self.query}"


def make_query_log_calls(names: IndexNames, replicas: int) -> tuple[Call, Call, Call]:
    """Return the calls that create the index of all queries. See `make_index_calls`."""
    return make_index_calls(names.queries, _QUERY_LOG_PROPERTIES, replicas, {"analysis": SUGGEST_ANALYSIS})


def read_query_counts_call(names: IndexNames, queries: Sequence[CountedQuery], timeout: float) -> Call:
    """Read the stored counts of queries in real time."""
    docs = [{"_index": names.queries, "_id": query.id} for query in queries]
    return Call("POST", "/_mget", orjson.dumps({"docs": docs}), timeout=timeout)


def is_query_index_missing(answer: Mapping[str, Any]) -> bool:
    """Tell whether an answer to `read_query_counts_call` reports a missing index."""
    return any(document.get("error", {}).get("type") == "index_not_found_exception" for document in answer["docs"])


def write_query_counts_call(
    names: IndexNames, queries: Sequence[CountedQuery], answer: Mapping[str, Any], now: int, timeout: float
) -> Call:
    """Add the new counts to the counts in an answer to `read_query_counts_call`, each by compare-and-swap."""
    lines: list[dict[str, Any]] = []
    for query, document in zip(queries, answer["docs"], strict=True):
        action: dict[str, Any] = {"_index": names.queries, "_id": query.id, "require_alias": True}
        stored: Mapping[str, Any] = {}
        if document.get("found"):
            stored = document["_source"]
            action |= {"if_seq_no": document["_seq_no"], "if_primary_term": document["_primary_term"]}
        source = {
            "index": query.index,
            "lineage": query.lineage,
            "query": query.query,
            "asked": stored.get("asked", 0) + query.times,
            "rank": update_rank(stored.get("rank"), query.times, now),
        }
        lines += [{"index" if stored else "create": action}, source]
    body = b"\n".join(map(orjson.dumps, lines)) + b"\n"
    return Call("POST", "/_bulk", body, {"filter_path": "items.*.status"}, timeout=timeout, ndjson=True)


def read_conflicting_queries(queries: Sequence[CountedQuery], answer: Mapping[str, Any]) -> list[CountedQuery]:
    """Return the queries with a conflict in an answer to `write_query_counts_call`: another process counted them."""
    statuses = [next(iter(item.values()))["status"] for item in answer["items"]]
    return [query for query, status in zip(queries, statuses, strict=True) if status == 409]


def list_queries_call(names: IndexNames, generation: Generation, size: int, now: int) -> Call:
    """List all stored queries of an index, also queries that are not suggested."""
    search = {
        "query": _suggestible_clause(generation, 1, now),
        "size": size,
        "sort": [{"rank": "desc"}],
        "track_total_hits": True,
    }
    params = {"allow_partial_search_results": "false", "ignore_unavailable": "true"}
    return Call("POST", f"/{names.queries}/_search", orjson.dumps(search), params)


def read_query_list(answer: Mapping[str, Any], now: int) -> dict[str, Any]:
    """Format an answer to `list_queries_call` for the API."""
    queries = []
    for hit in answer["hits"]["hits"]:
        stored = hit["_source"]
        recent = round(decayed_count(stored["rank"], now), 2)
        # `asked` and `lately` are the former names of `times` and `recent`; the next version leaves them out.
        queries.append(
            {
                "query": stored["query"],
                "times": stored["asked"],
                "recent": recent,
                "asked": stored["asked"],
                "lately": recent,
            }
        )
    return {"total": answer["hits"].get("total", {}).get("value", 0), "queries": queries}


def refresh_queries_call(names: IndexNames) -> Call:
    """Make all writes visible to `list_queries_call` and `remove_queries_call`, which are searches."""
    return Call("POST", f"/{names.queries}/_refresh", params={"ignore_unavailable": "true"})


def remove_queries_call(names: IndexNames, index: str, query: str | None = None) -> Call:
    """Remove one query of an index, in its normal form, or all queries, of every lineage."""
    clauses: list[Clause] = [{"term": {"index": index}}]
    if query is not None:
        clauses.append({"term": {"query.whole": query}})
    return _delete_queries_call(names, {"bool": {"filter": clauses}})


def copy_queries_call(
    names: IndexNames, source_index: str, source: Generation, target: Generation, timeout: float
) -> Call:
    """Copy the queries of `source` from the index of queries `source_index`, under the name and lineage of `target`."""
    script = (
        "ctx._source.index = params.index; ctx._source.lineage = params.lineage;"
        " ctx._id = params.lineage + '.' + ctx._source.query"
    )
    body = {
        "source": {"index": source_index, "query": {"term": {"lineage": source.lineage}}},
        "dest": {"index": names.queries},
        "script": {"source": script, "params": {"index": target.index, "lineage": target.lineage}},
    }
    return Call("POST", "/_reindex", orjson.dumps(body), {"refresh": "true"}, timeout)


def excess_rank_call(names: IndexNames, lineage: str, most: int) -> Call:
    """Find the rank of the first query of an index beyond the limit `most`."""
    search = {"query": {"term": {"lineage": lineage}}, "from": most, "size": 1, "sort": [{"rank": "desc"}]}
    return Call("POST", f"/{names.queries}/_search", orjson.dumps(search | {"_source": ["rank"]}))


def read_excess_rank(answer: Mapping[str, Any]) -> float | None:
    """Read the rank from an answer to `excess_rank_call`; None if the index is within the limit."""
    hits = answer["hits"]["hits"]
    return float(hits[0]["_source"]["rank"]) if hits else None


def prune_queries_call(names: IndexNames, lineage: str, up_to: float | None, now: int) -> Call:
    """Remove the forgotten queries of an index, and queries up to a rank."""
    least = max(popularity_rank(FORGOTTEN_COUNT, now), -1.0 if up_to is None else up_to)
    expired = {"bool": {"filter": [{"term": {"lineage": lineage}}, {"range": {"rank": {"lte": least}}}]}}
    return _delete_queries_call(names, expired)


def _delete_queries_call(names: IndexNames, query: Clause) -> Call:
    params = {"conflicts": "proceed", "refresh": "true", "ignore_unavailable": "true", "filter_path": "deleted"}
    return Call("POST", f"/{names.queries}/_delete_by_query", orjson.dumps({"query": query}), params)
