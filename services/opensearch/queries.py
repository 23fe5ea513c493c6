"""Search bodies and calls: sparse, lexical and nested queries, filters, and rescoring.

A sparse query is a sum of `rank_feature` clauses (Lucene's FeatureField.newLinearQuery), a lexical query is a `match`
query (BM25, k1 1.2, b 0.75). A filter becomes clauses of `bool.filter`: unscored, cached, and the same for every list
of a search. Chapters and passages are nested documents. Metadata of hits comes from doc values, without the source.
See docs/decisions/0094 (the local copies), 0151 (two phases), 0160 (filters), 0195 (chapters).
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
FieldValues = Mapping[str, list[Any]]
# Words of title and text together, of titles, of chapter titles, of one chapter, of one passage.
LexicalField = Literal["lexical", "title_words", "chapter_titles", "chapters.words", "window_vectors.words"]
NestedKind = Literal["chapter", "passage"]
_SPARSE_FIELDS: dict[ScoreBy, str] = {"document": "sparse", "window": "window_vectors.sparse"}
_NESTED_PATHS: Final[Mapping[NestedKind, str]] = {"chapter": "chapters", "passage": "window_vectors"}
_WORDS: Final[Mapping[NestedKind, LexicalField]] = {"chapter": "chapters.words", "passage": "window_vectors.words"}
_DATE_FORMATS: Final = "epoch_millis||strict_date_optional_time"
# A tombstone matches a filter as a document without metadata does. It has no words, so word queries never match it;
# other queries must exclude it.
NOT_DELETED: Final[Clause] = {"bool": {"must_not": [{"term": {"state": DELETED}}]}}


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """A list of a search: the index and the search body.

    `index`: names separated by commas; None if the body names a point in time, which has its indexes and its copies.
    `pooled`: BM25 uses the term statistics of all shards together, which costs OpenSearch one more round trip.
    """

    index: str | None
    body: dict[str, Any]
    pooled: bool = False

    def options(self, prefer_local: bool) -> dict[str, str]:
        """Return the options beside the body, in the URL or in the header line of a multi-search.

        Partial results are an error and never an answer. `prefer_local`: the contacted node searches its own copies, so
        that a search does not wait for another node that hangs (docs/decisions/0094).
        """
        options = {"allow_partial_search_results": "false"}
        if self.pooled:
            options["search_type"] = "dfs_query_then_fetch"
        return options | _preference_option(prefer_local and self.index is not None)


def search_call(plan: SearchPlan, timeout: float, *, prefer_local: bool = False) -> Call:
    """Build the call for one list. `prefer_local` as in `SearchPlan.options`."""
    path = "/_search" if plan.index is None else f"/{plan.index}/_search"
    return Call("POST", path, orjson.dumps(plan.body), plan.options(prefer_local), timeout=timeout)


def msearch_call(plans: Iterable[SearchPlan], timeout: float, *, prefer_local: bool = False) -> Call:
    """Build the call for several lists in one request. `prefer_local` as in `SearchPlan.options`."""
    lines = [orjson.dumps(line) for plan in plans for line in (_header(plan, prefer_local), plan.body)]
    return Call("POST", "/_msearch", b"\n".join(lines) + b"\n", timeout=timeout, ndjson=True)


def _header(plan: SearchPlan, prefer_local: bool) -> dict[str, str]:
    return plan.options(prefer_local) if plan.index is None else {"index": plan.index} | plan.options(prefer_local)


def fetch_fields_call(
    documents: Iterable[tuple[tuple[str, str], Sequence[str]]],
    timeout: float,
    *,
    prefer_local: bool = False,
    realtime: bool = False,
) -> Call:
    """Build the call that reads fields of documents by index and id.

    It reads the state that searches see, or with `realtime` the latest one. `prefer_local` as in `SearchPlan.options`.
    """
    docs = [{"_index": index, "_id": document_id, "_source": source} for (index, document_id), source in documents]
    params = {"realtime": str(realtime).lower()} | _preference_option(prefer_local)
    return Call("POST", "/_mget", orjson.dumps({"docs": docs}), params, timeout=timeout)


def _preference_option(prefer_local: bool) -> dict[str, str]:
    return {"preference": "_local"} if prefer_local else {}


def build_search_body(query: dict[str, Any], size: int, source: Sequence[str] | bool, timeout: float) -> dict[str, Any]:
    """Build the body of one search. `timeout` is in seconds.

    Hits are not counted: counting disables block-max skipping (WAND) of documents that cannot reach the top.
    """
    return {
        "query": query,
        "size": size,
        "_source": source if isinstance(source, bool) else {"includes": list(source)},
        "track_total_hits": False,
        "timeout": f"{max(1, int(timeout * 1000))}ms",
    }


def sparse_query(query: QueryVector, by: ScoreBy = "document") -> dict[str, Any]:
    """Build the query that scores the sum over the query's pieces of query weight times document weight.

    With `by` "window", the score is the largest such sum of any window. `"linear": {}` makes each clause Lucene's
    FeatureField.newLinearQuery; without it OpenSearch uses the saturation function and raises no error. OpenSearch's
    neural_sparse query builds the same clauses from `query_tokens`. An empty query matches nothing.
    """
    if not query.ids:
        return {"match_none": {}}
    field_query = sparse_field_query(query, _SPARSE_FIELDS[by])
    if by == "document":
        return field_query
    return {"nested": {"path": "window_vectors", "score_mode": "max", "query": field_query}}


def sparse_field_query(query: QueryVector, field: str) -> dict[str, Any]:
    """Build the sparse sum over one rank_features field. See `sparse_query`."""
    return feature_sum(zip(query.ids, query.weights, strict=True), field)


def feature_sum(features: Iterable[tuple[int | str, float]], field: str) -> dict[str, Any]:
    """Build the sum over features of a rank_features field: query weight times stored weight.

    A name with a dot is not found: OpenSearch takes what follows the last dot for the name.
    """
    clauses = [
        {"rank_feature": {"field": f"{field}.{name}", "boost": weight, "linear": {}}} for name, weight in features
    ]
    return {"bool": {"should": clauses}} if clauses else {"match_none": {}}


def lexical_query(
    text: str, also: Mapping[str, float] | None = None, field: LexicalField = "lexical"
) -> dict[str, Any]:
    """Build the BM25 query (k1 1.2, b 0.75, Lucene's defaults) over one field: title and text together, or titles.

    `also`: more words, with their boosts.
    """
    words = {"match": {field: {"query": text}}}
    if not also:
        return words
    boosted = [{"match": {field: {"query": word, "boost": boost}}} for word, boost in also.items()]
    return {"bool": {"should": [words, *boosted]}}


def add_filter(
    query: dict[str, Any], clauses: Sequence[dict[str, Any]], excluded_ids: Sequence[str] = ()
) -> dict[str, Any]:
    """Restrict a query to the documents that match each clause, without some ids. Clauses do not change scores.

    A `bool` with `filter` matches without any of its optional clauses, so `minimum_should_match` demands one.
    """
    if not clauses and not excluded_ids:
        return query
    bool_query = query["bool"] | {"minimum_should_match": 1} if "should" in query.get("bool", {}) else {"must": [query]}
    if clauses:
        bool_query["filter"] = list(clauses)
    if excluded_ids:
        bool_query["must_not"] = [{"ids": {"values": list(excluded_ids)}}]
    return {"bool": bool_query}


def replace_scores(search: dict[str, Any], query: dict[str, Any], window: int) -> dict[str, Any]:
    """Rescore the best `window` documents of each shard with `query` alone; documents that do not match it get 0.

    Two-phase searches by window need it: the best window for the heavy pieces need not be the best for all pieces, and
    the largest sum is not the sum of two largest parts.
    """
    rescore = {"rescore_query": query, "query_weight": 0, "rescore_query_weight": 1}
    return search | {"rescore": {"window_size": window, "query": rescore}}


def add_rescore(search: dict[str, Any], tail: QueryVector, window: int) -> dict[str, Any]:
    """Add the score of `tail` to the best `window` documents of each shard, and order them again.

    Both weights are 1, so a score is the sum over all pieces, as in one query (but for the last bit of a float:
    Lucene's QueryRescorer adds two rounded scores). A document without a piece of `tail` keeps its score. `window` must
    be at least the size of the search, or the last hits lack the score of the tail. OpenSearch rejects `rescore` with
    `sort`.
    """
    rescore = {"rescore_query": sparse_query(tail), "query_weight": 1, "rescore_query_weight": 1}
    return search | {"rescore": {"window_size": window, "query": rescore}}


def stored_vectors_body(ids: Sequence[str], fingerprint: str, timeout: float) -> dict[str, Any]:
    """Build a search that reads the dense vectors of documents by id, from doc values: an mget reads whole sources.

    Vectors of a dense encoder other than `fingerprint` are omitted.
    """
    clauses = [{"ids": {"values": list(ids)}}, {"term": {"dense_encoder": fingerprint}}]
    search = build_search_body({"bool": {"filter": clauses}}, len(ids), False, timeout)
    return search | {"docvalue_fields": ["dense"]}


def nested_words_field(kind: NestedKind) -> LexicalField:
    """Return the field with the words of chapters or of passages."""
    return _WORDS[kind]


def sparse_nested_query(query: QueryVector, kind: NestedKind) -> Clause:
    """Build the sparse sum that scores each chapter or passage by itself."""
    return sparse_field_query(query, f"{_NESTED_PATHS[kind]}.sparse")


def best_nested_query(query: Clause, kind: NestedKind, limit: int, *, explained: bool = False) -> Clause:
    """Build the query that scores documents by their best chapter or passage, and returns their best `limit` of them.

    The best n of all documents are among the best of the n best documents.
    """
    inner_hits: dict[str, Any] = {"size": limit, "_source": False}
    if explained:
        inner_hits["explain"] = True
    return {"nested": {"path": _NESTED_PATHS[kind], "score_mode": "max", "query": query, "inner_hits": inner_hits}}


def best_nested_score_query(query: Clause, kind: NestedKind, factor: float) -> Clause:
    """Build the query that scores `factor` times the score of a document's best chapter or passage."""
    return {"nested": {"path": _NESTED_PATHS[kind], "score_mode": "max", "query": query, "boost": factor}}


def read_best_nested(hit: Mapping[str, Any], kind: NestedKind) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the number (from 0) and the hit of each best chapter or passage of a document."""
    hits: Collection[Mapping[str, Any]] = hit["inner_hits"][_NESTED_PATHS[kind]]["hits"]["hits"]
    for nested_hit in hits:
        yield nested_hit["_nested"]["offset"], nested_hit


def build_filter_clauses(tree: Filter | None) -> list[Clause]:
    """Return the clauses that must all match; none for no filter."""
    if tree is None:
        return []
    return [build_filter_clause(operand) for operand in (tree.parts if isinstance(tree, AllOf) else (tree,))]


def build_filter_clause(tree: Filter) -> Clause:
    """Return the query that matches exactly the documents that satisfy the filter.

    A tombstone matches as a document without fields.
    """
    match tree:
        case AllOf(operands):
            return {"bool": {"filter": [build_filter_clause(operand) for operand in operands]}}
        case AnyOf(operands):
            return {
                "bool": {"should": [build_filter_clause(operand) for operand in operands], "minimum_should_match": 1}
            }
        case Not(operand):
            return {"bool": {"must_not": [build_filter_clause(operand)]}}
        case OneOf(field, values):
            terms = [equal for value in values for equal in _equal_values(value)]
            return {"terms": {field_path(field): terms}} if len(terms) > 1 else {"term": {field_path(field): terms[0]}}
        case InRange(field, low, high, date):
            bounds = {name: bound for name, bound in (("gte", low), ("lte", high)) if bound is not None}
            if not date:
                return {"range": {field_path(field): bounds}}
            dates = {name: _format_date(int(bound)) for name, bound in bounds.items()}
            return {"range": {field_path(field): dates | {"format": _DATE_FORMATS}}}
        case Exists(field):
            return {"exists": {"field": field_path(field)}}
        case StartsWith(field, prefix):
            return {"prefix": {field_path(field): prefix}}
        case MatchesWords(field, text):
            return {"match": {field_path(field): {"query": text, "operator": "and"}}}


def field_path(field: str) -> str:
    """Return the OpenSearch field of a filter's field."""
    return {ID: "_id", STATE: "state"}.get(field, f"metadata.{field}")


def _format_date(milliseconds: int) -> str | int:
    """Write times before 1970 as dates: OpenSearch 3.6 reads -3470 as an upper bound as if it were -3471."""
    return milliseconds if milliseconds >= 0 else f"{np.datetime64(milliseconds, 'ms')}Z"


def _equal_values(value: str | float | bool) -> tuple[str | float | bool, ...]:
    """Return both floating-point zeros for a zero: they are equal (IEEE 754), but different terms in OpenSearch."""
    return (0.0, -0.0) if isinstance(value, float) and value == 0 else (value,)


def build_docvalue_fields(kinds: Mapping[str, FieldType]) -> list[dict[str, str]]:
    """Return the `docvalue_fields` of a search."""
    return [
        {"field": field_path(field)} | ({"format": "epoch_millis"} if kind == "date" else {})
        for field, kind in kinds.items()
    ]


def read_field_values(hit: Mapping[str, Any], kinds: Mapping[str, FieldType]) -> FieldValues:
    """Return the values of a hit by field: strings, floats, booleans, and dates as milliseconds since 1970.

    A field without values is absent.
    """
    fields = hit.get("fields", {})
    return {
        field: [int(value) for value in values] if kind == "date" else values
        for field, kind in kinds.items()
        if (values := fields.get(field_path(field)))
    }
