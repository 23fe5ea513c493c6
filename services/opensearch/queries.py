"""Search bodies as values: the sparse sum, keyword search, and what both return.

A filter as clauses of OpenSearch's `bool.filter`: not scored, cached, and the same for every list of a search.

The values of metadata fields beside a hit, out of the columns that are sorted and counted by, without its source.

Searches for parts of documents, which are nested: chapters of talk, and windows.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import orjson

from services.encoders.query_table import QueryVector
from services.filters.tree import ID, STATE, AllOf, AnyOf, Exists, Filter, InRange, MatchesWords, Not, OneOf, StartsWith
from services.index_spec import FieldType, ScoreBy
from services.opensearch.client import Call
from services.opensearch.journal import DELETED

Clause = dict[str, Any]
_MOMENTS: Final = "epoch_millis||strict_date_optional_time"

# A tombstone satisfies whatever a document without any metadata does. Searches by words never meet one; what asks for
# no words must leave them out.
NOT_DELETED: Final[Clause] = {"bool": {"must_not": [{"term": {"state": DELETED}}]}}


def build_filter_clauses(tree: Filter | None) -> list[Clause]:
    """The clauses that must all hold; none for no filter."""
    if tree is None:
        return []
    return [build_filter_clause(part) for part in (tree.parts if isinstance(tree, AllOf) else (tree,))]


def build_filter_clause(tree: Filter) -> Clause:
    """One query that matches exactly the documents that satisfy the filter, and tombstones as if they had no fields."""
    match tree:
        case AllOf(parts):
            return {"bool": {"filter": [build_filter_clause(part) for part in parts]}}
        case AnyOf(parts):
            return {"bool": {"should": [build_filter_clause(part) for part in parts], "minimum_should_match": 1}}
        case Not(part):
            return {"bool": {"must_not": [build_filter_clause(part)]}}
        case OneOf(field, values):
            named = [zero for value in values for zero in _zeros(value)]
            return {"terms": {field_path(field): named}} if len(named) > 1 else {"term": {field_path(field): named[0]}}
        case InRange(field, low, high, date):
            bounds = {name: bound for name, bound in (("gte", low), ("lte", high)) if bound is not None}
            if not date:
                return {"range": {field_path(field): bounds}}
            moments = {name: _moment(int(bound)) for name, bound in bounds.items()}
            return {"range": {field_path(field): moments | {"format": _MOMENTS}}}
        case Exists(field):
            return {"exists": {"field": field_path(field)}}
        case StartsWith(field, prefix):
            return {"prefix": {field_path(field): prefix}}
        case MatchesWords(field, text):
            return {"match": {field_path(field): {"query": text, "operator": "and"}}}


def field_path(field: str) -> str:
    """Where OpenSearch keeps a field of a filter."""
    return {ID: "_id", STATE: "state"}.get(field, f"metadata.{field}")


def _moment(milliseconds: int) -> str | int:
    """Before 1970 as a date: OpenSearch 3.6 reads -3470 as an upper bound as if it were -3471."""
    return milliseconds if milliseconds >= 0 else f"{np.datetime64(milliseconds, 'ms')}Z"


def _zeros(value: str | float | bool) -> tuple[str | float | bool, ...]:
    """The two zeros of floating point are equal to everybody but OpenSearch."""
    return (0.0, -0.0) if isinstance(value, float) and value == 0 else (value,)


FieldValues = Mapping[str, list[Any]]


def build_docvalue_fields(kinds: Mapping[str, FieldType]) -> list[dict[str, str]]:
    """The `docvalue_fields` of a search."""
    return [
        {"field": field_path(field)} | ({"format": "epoch_millis"} if kind == "date" else {})
        for field, kind in kinds.items()
    ]


def read_field_values(hit: Mapping[str, Any], kinds: Mapping[str, FieldType]) -> FieldValues:
    """Values by field: strings, floats, booleans, and dates as milliseconds since 1970; none of a field without any."""
    listed = hit.get("fields", {})
    return {
        field: [int(value) for value in values] if kind == "date" else values
        for field, kind in kinds.items()
        if (values := listed.get(field_path(field)))
    }


# Title and text together, the words of titles alone, of chapters' titles alone, of a chapter, of a passage.
KeywordField = Literal["lexical", "title_words", "chapter_titles", "chapters.words", "window_vectors.words"]
_VECTOR: dict[ScoreBy, str] = {"document": "sparse", "window": "window_vectors.sparse"}


def sparse_query(query: QueryVector, by: ScoreBy = "document") -> dict[str, Any]:
    """Sum over the query's pieces of query weight x document weight, or the largest such sum of any window.

    `"linear": {}` makes each clause Lucene's FeatureField.newLinearQuery; without it the saturation function is used
    and no error is raised. It is the query that neural_sparse builds from `query_tokens`. An empty query matches
    nothing.
    """
    if not query.ids:
        return {"match_none": {}}
    pieces = sparse_field_query(query, _VECTOR[by])
    if by == "document":
        return pieces
    return {"nested": {"path": "window_vectors", "score_mode": "max", "query": pieces}}


def sparse_field_query(query: QueryVector, field: str) -> dict[str, Any]:
    """The sum over one field, of whatever has it. See `sparse_query`, which is what documents are asked with."""
    if not query.ids:
        return {"match_none": {}}
    clauses = [
        {"rank_feature": {"field": f"{field}.{piece}", "boost": weight, "linear": {}}}
        for piece, weight in zip(query.ids, query.weights, strict=True)
    ]
    return {"bool": {"should": clauses}}


def lexical_query(
    text: str, also: Mapping[str, float] | None = None, field: KeywordField = "lexical"
) -> dict[str, Any]:
    """BM25 (k1 1.2, b 0.75, Lucene's defaults) over title and text together, or titles alone. `also`: more words, with
    boosts.
    """
    words = {"match": {field: {"query": text}}}
    if not also:
        return words
    others = [{"match": {field: {"query": word, "boost": boost}}} for word, boost in also.items()]
    return {"bool": {"should": [words, *others]}}


def add_filter(
    query: dict[str, Any], clauses: Sequence[dict[str, Any]], left_out: Sequence[str] = ()
) -> dict[str, Any]:
    """The documents that match the query and each clause, but for some ids. Clauses add nothing to a score.

    A `bool` whose clauses are optional matches whatever its filter matches, unless one of them is demanded.
    """
    if not clauses and not left_out:
        return query
    around = query["bool"] | {"minimum_should_match": 1} if "should" in query.get("bool", {}) else {"must": [query]}
    if clauses:
        around["filter"] = list(clauses)
    if left_out:
        around["must_not"] = [{"ids": {"values": list(left_out)}}]
    return {"bool": around}


def build_search_body(query: dict[str, Any], size: int, source: Sequence[str] | bool, timeout: float) -> dict[str, Any]:
    """One search. Hits are not counted: counting disables the skipping of documents that cannot win."""
    return {
        "query": query,
        "size": size,
        "_source": source if isinstance(source, bool) else {"includes": list(source)},
        "track_total_hits": False,
        "timeout": f"{max(1, int(timeout * 1000))}ms",
    }


def replace_scores(search: dict[str, Any], query: dict[str, Any], window: int) -> dict[str, Any]:
    """A search whose best `window` documents of each shard get the score of `query` in place of theirs, 0 where it does
    not match.

    So those of two phases by windows are scored: the window that is best for the heavy pieces need not be the best for
    all, and the largest sum is not the sum of two largest ones.
    """
    again = {"rescore_query": query, "query_weight": 0, "rescore_query_weight": 1}
    return search | {"rescore": {"window_size": window, "query": again}}


def add_rescore(search: dict[str, Any], tail: QueryVector, window: int) -> dict[str, Any]:
    """A search whose best `window` documents of each shard get the score of `tail` added to theirs, and a new order.

    Both weights are 1, so a score is the sum over all pieces, as if they had been asked for at once (but for the last
    bit of a float: Lucene's QueryRescorer adds two that are rounded already). A document that has no piece of `tail`
    keeps its score. `window` is at least the search's size, or hits at the end would lack what the tail gives them.
    OpenSearch refuses it beside `sort`.
    """
    again = {"rescore_query": sparse_query(tail), "query_weight": 1, "rescore_query_weight": 1}
    return search | {"rescore": {"window_size": window, "query": again}}


def stored_vectors_body(ids: Sequence[str], fingerprint: str, timeout: float) -> dict[str, Any]:
    """The dense vectors of documents by id, as one search: an mget reads whole sources, this only the doc values.

    Those of another dense encoder than `fingerprint` are left out.
    """
    wanted = [{"ids": {"values": list(ids)}}, {"term": {"dense_encoder": fingerprint}}]
    search = build_search_body({"bool": {"filter": wanted}}, len(ids), False, timeout)
    return search | {"docvalue_fields": ["dense"]}


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """One list: what is searched, and the search's body.

    `index`: names separated by commas; None where the body names a snapshot, which has its indexes and its copies.
    `pooled`: the statistics of words (BM25's) are those of all shards together, one round of the engine's more.
    """

    index: str | None
    body: dict[str, Any]
    pooled: bool = False

    def options(self, near: bool) -> dict[str, str]:
        """What goes beside the body, in the address or in a line of its own.

        Partial results are an error of the engine's, never an answer. `near`: the node that is asked answers from its
        own copies where it has them, so that a search does not wait for another node that hangs
        (docs/decisions/0094).
        """
        options = {"allow_partial_search_results": "false"}
        if self.pooled:
            options["search_type"] = "dfs_query_then_fetch"
        return options | _preference_option(near and self.index is not None)


def search_call(plan: SearchPlan, timeout: float, *, near: bool = False) -> Call:
    """One list; `near` as in `Plan.options`."""
    path = "/_search" if plan.index is None else f"/{plan.index}/_search"
    return Call("POST", path, orjson.dumps(plan.body), plan.options(near), timeout=timeout)


def msearch_call(plans: Iterable[SearchPlan], timeout: float, *, near: bool = False) -> Call:
    """Several lists in one request; `near` as in `Plan.options`."""
    lines = [orjson.dumps(part) for plan in plans for part in (_header(plan, near), plan.body)]
    return Call("POST", "/_msearch", b"\n".join(lines) + b"\n", timeout=timeout, ndjson=True)


def _header(plan: SearchPlan, near: bool) -> dict[str, str]:
    return plan.options(near) if plan.index is None else {"index": plan.index} | plan.options(near)


def fetch_fields_call(
    wanted: Iterable[tuple[tuple[str, str], Sequence[str]]],
    timeout: float,
    *,
    near: bool = False,
    realtime: bool = False,
) -> Call:
    """Fields of documents, named by index and id, as searches see them, or, in real time, as they are.

    `near`: see `Plan.options`.
    """
    docs = [{"_index": index, "_id": one, "_source": source} for (index, one), source in wanted]
    params = {"realtime": str(realtime).lower()} | _preference_option(near)
    return Call("POST", "/_mget", orjson.dumps({"docs": docs}), params, timeout=timeout)


def _preference_option(near: bool) -> dict[str, str]:
    return {"preference": "_local"} if near else {}


PartKind = Literal["chapter", "passage"]
_NESTED_PATHS: Final[Mapping[PartKind, str]] = {"chapter": "chapters", "passage": "window_vectors"}
_WORDS: Final[Mapping[PartKind, KeywordField]] = {"chapter": "chapters.words", "passage": "window_vectors.words"}


def part_words_field(part: PartKind) -> KeywordField:
    """Where keyword search finds the words of such parts."""
    return _WORDS[part]


def sparse_part_query(query: QueryVector, part: PartKind) -> Clause:
    """The sum over the pieces of a query, of each part by itself."""
    return sparse_field_query(query, f"{_NESTED_PATHS[part]}.sparse")


def best_parts_query(query: Clause, part: PartKind, most: int, *, explained: bool = False) -> Clause:
    """Documents by the score of their best part, each with its best `most` parts.

    The best n parts of all are among those of the n documents with the best ones.
    """
    inner: dict[str, Any] = {"size": most, "_source": False}
    if explained:
        inner["explain"] = True
    return {"nested": {"path": _NESTED_PATHS[part], "score_mode": "max", "query": query, "inner_hits": inner}}


def best_part_score_query(query: Clause, part: PartKind, factor: float) -> Clause:
    """So many times the score of a document's best part."""
    return {"nested": {"path": _NESTED_PATHS[part], "score_mode": "max", "query": query, "boost": factor}}


def read_best_parts(hit: Mapping[str, Any], part: PartKind) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The best parts of a document that was found: their numbers, counted from 0, and what is said of each."""
    found: Collection[Mapping[str, Any]] = hit["inner_hits"][_NESTED_PATHS[part]]["hits"]["hits"]
    for one in found:
        yield one["_nested"]["offset"], one
