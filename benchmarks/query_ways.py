"""Ways to search the sparse list: whole query, pruned, in two phases, and both; as requests and in memory.

`ALL_WAYS` are compared by quality (`pruning_quality`), `TIMED_WAYS` by latency beside `match` (`pruning`), with a
filter and without (docs/decisions/0151).
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
HitList = list[tuple[str, float]]


@dataclass(frozen=True)
class SparseWay:
    """Share of the heaviest weight below which pieces are pruned, and the two phases; a window of 0 means one phase."""

    prune: float = 0.0
    threshold: float = 0.0
    window: int = 0

    def parts(self, query: QueryVector) -> tuple[QueryVector, QueryVector]:
        """Return the query that finds documents, and the query that rescores the best of them."""
        return split_query(prune_query(query, self.prune), self.threshold if self.window else 0.0)

    def search(self, query: QueryVector, size: int) -> dict[str, Any]:
        """Return the body that the API sends."""
        head, tail = self.parts(query)
        search = build_search_body(sparse_query(head), size, False, TIMEOUT_SECONDS)
        return add_rescore(search, tail, max(self.window, size)) if tail.ids else search

    def in_one_phase(self) -> "SparseWay":
        """Return the way in one phase, for when the heavy pieces find too few documents."""
        return replace(self, window=0)

    def ranking(self, index: ExactIndex, query: QueryVector, size: int) -> list[tuple[str, float]]:
        """Return the list of an index of one shard, in memory."""
        head, tail = self.parts(query)
        whole = head.by_id() | tail.by_id()
        if not tail.ids:
            return index.search(whole, size)
        heavy = index.search(head.by_id(), max(self.window, size))
        if len(heavy) < size:
            return index.search(whole, size)
        candidates = {name for name, _ in heavy}
        return [(name, score) for name, score in index.search(whole, len(index.names)) if name in candidates][:size]


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
# Ways that are timed: each takes minutes at 500,000 documents. Other thresholds and windows lost as much quality.
TIMED_WAYS: Final = (
    "whole", "pruned 0.2", "pruned 0.3", "two phases 0.4, 200", "two phases 0.5, 200", "two phases 0.6, 200",
    "pruned 0.2, two phases 0.5, 200", "pruned 0.2, two phases 0.6, 200",
)  # fmt: skip
MATCH_WAY = "match"
# Ways that are also timed with a filter that leaves one document in a thousand.
FILTERED_WAYS = (MATCH_WAY, "whole", "pruned 0.2, two phases 0.5, 200")
_SUFFIX = ", filtered"
_FILTER = [{"term": {"metadata.part": "7"}}]


@dataclass(frozen=True)
class WayRequest:
    """Request body, and the body that follows when two phases find too few documents."""

    body: bytes
    in_one_phase: bytes | None = None


def make_requests(table: QueryTable, texts: Iterable[str], size: int) -> dict[str, dict[str, WayRequest]]:
    """Return the requests by way and query."""
    requests: dict[str, dict[str, WayRequest]] = {}
    for text in texts:
        query = table.encode(text, 1000)
        bodies = {MATCH_WAY: [build_search_body(lexical_query(text), size, False, TIMEOUT_SECONDS)]}
        for name in TIMED_WAYS:
            way = ALL_WAYS[name]
            ways = (way, way.in_one_phase()) if way.window else (way,)
            bodies[name] = [phases.search(query, size) for phases in ways]
        for name in FILTERED_WAYS:
            bodies[name + _SUFFIX] = [_add_filter(body) for body in bodies[name]]
        for name, searches in bodies.items():
            requests.setdefault(name, {})[text] = WayRequest(*(orjson.dumps(search) for search in searches))
    return requests


def unpruned_way(name: str) -> str:
    """Return the way whose hits are the reference: the whole query, under the same filter."""
    return f"whole{_SUFFIX}" if name.endswith(_SUFFIX) else "whole"


async def send_request(connection: LoopbackConnection, path: str, request: WayRequest, size: int) -> HitList:
    """Return the list that the API would return."""
    hits = _read_hits(await connection.send("POST", path, request.body))
    if request.in_one_phase and request.in_one_phase != request.body and len(hits) < size:
        hits = _read_hits(await connection.send("POST", path, request.in_one_phase))
    return hits


def _read_hits(answer: Mapping[str, Any]) -> HitList:
    return [(hit["_id"], hit["_score"]) for hit in answer["hits"]["hits"]]


def _add_filter(search: dict[str, Any]) -> dict[str, Any]:
    query = search["query"]
    if "bool" in query:
        # Beside a filter, no `should` clause has to match by default.
        return search | {"query": {"bool": query["bool"] | {"filter": _FILTER, "minimum_should_match": 1}}}
    return search | {"query": {"bool": {"must": [query], "filter": _FILTER}}}
