"""Where frequent queries are kept: one document a query and index, by the index's lineage.

An index that was deleted and made again has another lineage, and is told none of the old one's queries. A write is a
compare-and-swap, so that two API processes lose no count of each other's. See docs/decisions/0179.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from services.index_spec import Generation, Names
from services.learned import FORGOTTEN, asked_again, count, rank
from services.opensearch import own_index
from services.opensearch.client import Call
from services.opensearch.queries import Plan, body
from services.opensearch.suggestions import ANALYSIS, COMPLETED, Clause, words_clause

_KEYWORD: Final = {"type": "keyword"}
_PROPERTIES: Final[dict[str, Any]] = {
    "index": _KEYWORD,
    "lineage": _KEYWORD,
    "query": {"type": "text", "index": False, "fields": COMPLETED},
    "asked": {"type": "long"},
    "rank": {"type": "double"},
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A query of an index and how often it was asked since it was last written."""

    index: str
    lineage: str
    query: str
    times: int

    @property
    def id(self) -> str:
        # (100 characters have 400 bytes at most, and an id may have 512)
        return f"{self.lineage}.{self.query}"


def make_calls(names: Names, replicas: int) -> tuple[Call, Call, Call]:
    """Create the index of all queries, as `own_index.make_calls`."""
    return own_index.make_calls(names.queries, _PROPERTIES, replicas, {"analysis": ANALYSIS})


def read_call(names: Names, some: Sequence[Asked], timeout: float) -> Call:
    """Reads what is stored of some queries, in real time."""
    docs = [{"_index": names.queries, "_id": one.id} for one in some]
    return Call("POST", "/_mget", orjson.dumps({"docs": docs}), timeout=timeout)


def is_missing(answer: Mapping[str, Any]) -> bool:
    """Whether an answer to `read_call` says that there is no such index yet."""
    return any(one.get("error", {}).get("type") == "index_not_found_exception" for one in answer["docs"])


def write_call(names: Names, some: Sequence[Asked], answer: Mapping[str, Any], now: int, timeout: float) -> Call:
    """Writes new counts over those in an answer to `read_call`, each only if it is still what was read."""
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
            "rank": asked_again(before.get("rank"), one.times, now),
        }
        lines += [{"index" if before else "create": action}, source]
    body = b"\n".join(map(orjson.dumps, lines)) + b"\n"
    return Call("POST", "/_bulk", body, {"filter_path": "items.*.status"}, timeout=timeout, ndjson=True)


def read_conflicts(some: Sequence[Asked], answer: Mapping[str, Any]) -> list[Asked]:
    """The queries in an answer to `write_call` that somebody else has counted meanwhile."""
    statuses = [next(iter(item.values()))["status"] for item in answer["items"]]
    return [one for one, status in zip(some, statuses, strict=True) if status == 409]


def suggested_plan(
    names: Names, generation: Generation, typed: str, size: int, least: int, now: int, timeout: float
) -> Plan:
    """The queries that hold each word of `typed`, or all, those first that are asked most nowadays.

    `least`: so often at least each was asked.
    """
    search = body(_kept(generation, least, now), size, ["query"], timeout)
    if typed:
        search["query"]["bool"]["filter"].append(words_clause("query", typed))
    return Plan(names.queries, search | {"sort": [{"rank": "desc"}]})


def list_call(names: Names, generation: Generation, size: int, now: int) -> Call:
    """All queries that are kept of an index, whether they are suggested or not."""
    search = {"query": _kept(generation, 1, now), "size": size, "sort": [{"rank": "desc"}], "track_total_hits": True}
    params = {"allow_partial_search_results": "false", "ignore_unavailable": "true"}
    return Call("POST", f"/{names.queries}/_search", orjson.dumps(search), params)


def read_list(answer: Mapping[str, Any], now: int) -> dict[str, Any]:
    """What an answer to `list_call` says, for answers."""
    stored = [hit["_source"] for hit in answer["hits"]["hits"]]
    return {
        "total": answer["hits"].get("total", {}).get("value", 0),
        "queries": [
            {"query": one["query"], "asked": one["asked"], "lately": round(count(one["rank"], now), 2)}
            for one in stored
        ],
    }


def refresh_call(names: Names) -> Call:
    """Makes what was written so far visible to `list_call` and `remove_call`, which are searches."""
    return Call("POST", f"/{names.queries}/_refresh", params={"ignore_unavailable": "true"})


def remove_call(names: Names, index: str, query: str | None = None) -> Call:
    """Removes a query of an index, in the form of `learnable`, or all of them, of whatever lineage."""
    clauses: list[Clause] = [{"term": {"index": index}}]
    if query is not None:
        clauses.append({"term": {"query.whole": query}})
    return _delete_call(names, {"bool": {"filter": clauses}})


def copy_call(names: Names, kept_in: str, source: Generation, target: Generation, timeout: float) -> Call:
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


def beyond_call(names: Names, lineage: str, most: int) -> Call:
    """Finds the rank of the first query of an index that is one too many."""
    search = {"query": {"term": {"lineage": lineage}}, "from": most, "size": 1, "sort": [{"rank": "desc"}]}
    return Call("POST", f"/{names.queries}/_search", orjson.dumps(search | {"_source": ["rank"]}))


def read_beyond(answer: Mapping[str, Any]) -> float | None:
    """The rank in an answer to `beyond_call`; None where there is room."""
    hits = answer["hits"]["hits"]
    return float(hits[0]["_source"]["rank"]) if hits else None


def forget_call(names: Names, lineage: str, up_to: float | None, now: int) -> Call:
    """Removes the queries of an index that nobody asks any more, and those up to a rank."""
    least = max(rank(FORGOTTEN, now), -1.0 if up_to is None else up_to)
    old = {"bool": {"filter": [{"term": {"lineage": lineage}}, {"range": {"rank": {"lte": least}}}]}}
    return _delete_call(names, old)


def _kept(generation: Generation, least: int, now: int) -> Clause:
    clauses = [
        {"term": {"lineage": generation.lineage}},
        {"range": {"asked": {"gte": least}}},
        {"range": {"rank": {"gt": rank(FORGOTTEN, now)}}},
    ]
    return {"bool": {"filter": clauses}}


def _delete_call(names: Names, query: Clause) -> Call:
    params = {"conflicts": "proceed", "refresh": "true", "ignore_unavailable": "true", "filter_path": "deleted"}
    return Call("POST", f"/{names.queries}/_delete_by_query", orjson.dumps({"query": query}), params)
