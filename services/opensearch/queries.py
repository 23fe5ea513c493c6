"""Search bodies as values: the sparse sum, keyword search, and what both return."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from services.opensearch.client import Call
from services.query_table import QueryVector


def sparse_query(query: QueryVector) -> dict[str, Any]:
    """Sum over the query's pieces of query weight x document weight.

    `"linear": {}` makes each clause Lucene's FeatureField.newLinearQuery; without it the saturation function is used
    and no error is raised. It is the query that neural_sparse builds from `query_tokens`. An empty query matches
    nothing.
    """
    if not query.ids:
        return {"match_none": {}}
    clauses = [
        {"rank_feature": {"field": f"sparse.{piece}", "boost": weight, "linear": {}}}
        for piece, weight in zip(query.ids, query.weights, strict=True)
    ]
    return {"bool": {"should": clauses}}


def lexical_query(text: str) -> dict[str, Any]:
    """BM25 (k1 1.2, b 0.75, Lucene's defaults) over title and text together."""
    return {"match": {"lexical": {"query": text}}}


def filtered(query: dict[str, Any], clauses: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The documents that match the query and each clause. Clauses add nothing to a score.

    A `bool` whose clauses are optional matches whatever its filter matches, unless one of them is demanded.
    """
    if not clauses:
        return query
    if "bool" in query:
        return {"bool": query["bool"] | {"filter": list(clauses), "minimum_should_match": 1}}
    return {"bool": {"must": [query], "filter": list(clauses)}}


def body(query: dict[str, Any], size: int, source: Sequence[str] | bool, timeout: float) -> dict[str, Any]:
    """One search. Hits are not counted: counting disables the skipping of documents that cannot win."""
    return {
        "query": query,
        "size": size,
        "_source": source if isinstance(source, bool) else {"includes": list(source)},
        "track_total_hits": False,
        "timeout": f"{max(1, int(timeout * 1000))}ms",
    }


def rescored(search: dict[str, Any], tail: QueryVector, window: int) -> dict[str, Any]:
    """A search whose best `window` documents of each shard get the score of `tail` added to theirs, and a new order.

    Both weights are 1, so a score is the sum over all pieces, as if they had been asked for at once (but for the last
    bit of a float: Lucene's QueryRescorer adds two that are rounded already). A document that has no piece of `tail`
    keeps its score. `window` is at least the search's size, or hits at the end would lack what the tail gives them.
    OpenSearch refuses it beside `sort`.
    """
    again = {"rescore_query": sparse_query(tail), "query_weight": 1, "rescore_query_weight": 1}
    return search | {"rescore": {"window_size": window, "query": again}}


def search_call(index: str | None, search: dict[str, Any], timeout: float, *, near: bool = False) -> Call:
    """One list. Partial results are an error of the engine's, never an answer.

    `index`: names separated by commas; None where the body names a snapshot, which has its index and its copies.
    `near`: the node that is asked answers from its own copies where it has them, so that a search does not wait for
    another node that hangs (docs/decisions/0094).
    """
    params = {"allow_partial_search_results": "false"} | _preference(near and index is not None)
    path = "/_search" if index is None else f"/{index}/_search"
    return Call("POST", path, orjson.dumps(search), params, timeout=timeout)


def msearch_call(searches: Iterable[tuple[str | None, dict[str, Any]]], timeout: float, *, near: bool = False) -> Call:
    """Several lists in one request, each with its `index`; that and `near` as in `search_call`."""
    lines = [orjson.dumps(part) for index, search in searches for part in (_header(index, near), search)]
    return Call("POST", "/_msearch", b"\n".join(lines) + b"\n", timeout=timeout, ndjson=True)


def _header(index: str | None, near: bool) -> dict[str, Any]:
    whole: dict[str, Any] = {"allow_partial_search_results": False}
    return whole if index is None else {"index": index} | whole | _preference(near)


def fetch_call(
    wanted: Iterable[tuple[tuple[str, str], Sequence[str]]],
    timeout: float,
    *,
    near: bool = False,
    realtime: bool = False,
) -> Call:
    """Fields of documents, named by index and id, as searches see them, or, in real time, as they are.

    `near`: see `search_call`.
    """
    docs = [{"_index": index, "_id": one, "_source": source} for (index, one), source in wanted]
    params = {"realtime": str(realtime).lower()} | _preference(near)
    return Call("POST", "/_mget", orjson.dumps({"docs": docs}), params, timeout=timeout)


def _preference(near: bool) -> dict[str, str]:
    return {"preference": "_local"} if near else {}
