"""The ways to ask for a sparse list that are compared: whole, pruned, in two phases, both; as bodies and in memory.

The ways of benchmarks.sparse_ways, and a keyword search, as requests to a node: with a filter and without.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from benchmarks.service import LoopbackConnection
from cli.relevance.metrics import ExactIndex
from services.encoders.query_table import QueryTable, QueryVector
from services.opensearch.queries import add_rescore, build_search_body, lexical_query, sparse_query
from services.query.expansion import prune_query, split_query

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class SparseWay:
    """Which share of the heaviest weight is pruned, and the two phases; a window of 0: one phase."""

    prune: float = 0.0
    threshold: float = 0.0
    window: int = 0

    def parts(self, query: QueryVector) -> tuple[QueryVector, QueryVector]:
        """What finds documents, and what is added to the best."""
        return split_query(prune_query(query, self.prune), self.threshold if self.window else 0.0)

    def search(self, query: QueryVector, size: int) -> dict[str, Any]:
        """The body that the API makes."""
        head, tail = self.parts(query)
        search = build_search_body(sparse_query(head), size, False, TIMEOUT_SECONDS)
        return add_rescore(search, tail, max(self.window, size)) if tail.ids else search

    def in_one_phase(self) -> "SparseWay":
        """What is asked for when heavy pieces find too few."""
        return replace(self, window=0)

    def ranking(self, index: ExactIndex, query: QueryVector, size: int) -> list[tuple[str, float]]:
        """The list of an index of one shard, in memory."""
        head, tail = self.parts(query)
        every = head.by_id() | tail.by_id()
        if not tail.ids:
            return index.search(every, size)
        heavy = index.search(head.by_id(), max(self.window, size))
        if len(heavy) < size:
            return index.search(every, size)
        found = {name for name, _ in heavy}
        return [(name, score) for name, score in index.search(every, len(index.names)) if name in found][:size]


PRUNED_SHARES: Final = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5)
ONE_PHASE_WAYS: Final[Mapping[str, SparseWay]] = {
    "whole": SparseWay(),
    **{f"pruned {share}": SparseWay(share) for share in PRUNED_SHARES},
}
TWO_PHASE_WAYS: Final[Mapping[str, SparseWay]] = {
    f"two phases {threshold}, {window}": SparseWay(0.0, threshold, window)
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7)
    for window in (50, 200, 1000)
}
PRUNED_TWO_PHASE_WAYS: Final[Mapping[str, SparseWay]] = {
    f"pruned {share}, two phases {threshold}, {window}": SparseWay(share, threshold, window)
    for share, threshold, window in ((0.2, 0.4, 200), (0.2, 0.5, 200), (0.2, 0.6, 200), (0.2, 0.6, 1000))
}
ALL_WAYS: Final[Mapping[str, SparseWay]] = {**ONE_PHASE_WAYS, **TWO_PHASE_WAYS, **PRUNED_TWO_PHASE_WAYS}
# What is timed: each takes minutes at half a million documents, and thresholds and windows beside these lost the same.
TIMED_WAYS: Final = (
    "whole", "pruned 0.2", "pruned 0.3", "two phases 0.4, 200", "two phases 0.5, 200", "two phases 0.6, 200",
    "pruned 0.2, two phases 0.5, 200", "pruned 0.2, two phases 0.6, 200",
)  # fmt: skip


HitList = list[tuple[str, float]]

MATCH_WAY = "match"
# Asked with a filter that leaves one document in a thousand, too.
FILTERED_WAYS = (MATCH_WAY, "whole", "pruned 0.2, two phases 0.5, 200")
_SUFFIX = ", filtered"
_FILTER = [{"term": {"metadata.part": "7"}}]


@dataclass(frozen=True)
class WayRequest:
    """A body, and the one that follows where two phases find fewer documents than were asked for."""

    body: bytes
    in_one_phase: bytes | None = None


def make_requests(table: QueryTable, texts: Iterable[str], size: int) -> dict[str, dict[str, WayRequest]]:
    """By way, then by query."""
    found: dict[str, dict[str, WayRequest]] = {}
    for text in texts:
        query = table.encode(text, 1000)
        bodies = {MATCH_WAY: [build_search_body(lexical_query(text), size, False, TIMEOUT_SECONDS)]}
        for name in TIMED_WAYS:
            way = ALL_WAYS[name]
            ways = (way, way.in_one_phase()) if way.window else (way,)
            bodies[name] = [one.search(query, size) for one in ways]
        for name in FILTERED_WAYS:
            bodies[name + _SUFFIX] = [_add_filter(one) for one in bodies[name]]
        for name, several in bodies.items():
            found.setdefault(name, {})[text] = WayRequest(*(orjson.dumps(one) for one in several))
    return found


def unpruned_way(name: str) -> str:
    """The way that a way's hits are compared with: the whole query, under the same filter."""
    return f"whole{_SUFFIX}" if name.endswith(_SUFFIX) else "whole"


async def send_request(connection: LoopbackConnection, path: str, request: WayRequest, size: int) -> HitList:
    """The list that the API would make."""
    found = _read_hits(await connection.send("POST", path, request.body))
    if request.in_one_phase and request.in_one_phase != request.body and len(found) < size:
        found = _read_hits(await connection.send("POST", path, request.in_one_phase))
    return found


def _read_hits(answer: Mapping[str, Any]) -> HitList:
    return [(hit["_id"], hit["_score"]) for hit in answer["hits"]["hits"]]


def _add_filter(search: dict[str, Any]) -> dict[str, Any]:
    query = search["query"]
    if "bool" in query:
        # of clauses beside a filter none has to match, unless that is said
        return search | {"query": {"bool": query["bool"] | {"filter": _FILTER, "minimum_should_match": 1}}}
    return search | {"query": {"bool": {"must": [query], "filter": _FILTER}}}
