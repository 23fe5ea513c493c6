"""The ways of benchmarks.sparse_ways, and a keyword search, as requests to a node: with a filter and without."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.loopback import KeptConnection
from benchmarks.sparse_ways import SECONDS, TIMED, WAYS
from services.opensearch.queries import body, lexical_query
from services.query_table import QueryTable

Hits = list[tuple[str, float]]

MATCH = "match"
# Asked with a filter that leaves one document in a thousand, too.
FILTERED = (MATCH, "whole", "pruned 0.2, two phases 0.5, 200")
_SUFFIX = ", filtered"
_FILTER = [{"term": {"metadata.part": "7"}}]


@dataclass(frozen=True)
class Request:
    """A body, and the one that follows where two phases find fewer documents than were asked for."""

    body: bytes
    in_one_phase: bytes | None = None


def requests(table: QueryTable, texts: Iterable[str], size: int) -> dict[str, dict[str, Request]]:
    """By way, then by query."""
    found: dict[str, dict[str, Request]] = {}
    for text in texts:
        query = table.encode(text, 1000)
        bodies = {MATCH: [body(lexical_query(text), size, False, SECONDS)]}
        for name in TIMED:
            way = WAYS[name]
            ways = (way, way.in_one_phase()) if way.window else (way,)
            bodies[name] = [one.search(query, size) for one in ways]
        for name in FILTERED:
            bodies[name + _SUFFIX] = [_filtered(one) for one in bodies[name]]
        for name, several in bodies.items():
            found.setdefault(name, {})[text] = Request(*(orjson.dumps(one) for one in several))
    return found


def unpruned(name: str) -> str:
    """The way that a way's hits are compared with: the whole query, under the same filter."""
    return f"whole{_SUFFIX}" if name.endswith(_SUFFIX) else "whole"


async def hits(connection: KeptConnection, path: str, request: Request, size: int) -> Hits:
    """The list that the API would make."""
    found = _hits(await connection.send("POST", path, request.body))
    if request.in_one_phase and request.in_one_phase != request.body and len(found) < size:
        found = _hits(await connection.send("POST", path, request.in_one_phase))
    return found


def _hits(answer: Mapping[str, Any]) -> Hits:
    return [(hit["_id"], hit["_score"]) for hit in answer["hits"]["hits"]]


def _filtered(search: dict[str, Any]) -> dict[str, Any]:
    query = search["query"]
    if "bool" in query:
        # of clauses beside a filter none has to match, unless that is said
        return search | {"query": {"bool": query["bool"] | {"filter": _FILTER, "minimum_should_match": 1}}}
    return search | {"query": {"bool": {"must": [query], "filter": _FILTER}}}
