"""Document-level security: the filter of a key, added to every OpenSearch request of its caller.

This is the only place that adds it, and it rejects every kind of request that it does not know. So no stage of a
search, present or future, can omit the filter. See docs/decisions/0201.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from services.errors import Forbidden
from services.filters.tree import Filter, satisfies_filter
from services.index_spec import Generation
from services.opensearch.client import Call
from services.opensearch.journal import DELETED
from services.opensearch.queries import NOT_DELETED, Clause, build_filter_clauses

# Search members that only return, sort or count documents that the query matches. Suggesters read other documents too.
_ALLOWED_MEMBERS: Final = frozenset(
    {
        "query", "size", "from", "_source", "sort", "search_after", "track_total_hits", "timeout", "explain", "version",
        "docvalue_fields", "rescore", "collapse", "pit", "slice", "aggs",
    }
)  # fmt: skip
# Aggregations over matching documents only; `global` and `significant_terms` read other documents too.
_ALLOWED_AGGREGATIONS: Final = frozenset({"filter", "filters", "terms", "date_histogram"})


class DocumentLevelSecurity:
    """Documents that one caller may see, by generation. Generations without `admit` are not visible."""

    def __init__(self) -> None:
        self._visible: dict[str, _VisibleDocuments] = {}
        self._aliases: set[str] = set()

    def admit(self, generation: Generation, tree: Filter) -> None:
        """Make the documents of a generation visible that satisfy the filter."""
        self._visible[generation.physical] = _VisibleDocuments(tree, tuple(build_filter_clauses(tree)))
        self._aliases.add(generation.alias)

    def filter_call(self, call: Call) -> Call:
        """Return the call with the filter. Raises Forbidden (`filtered_key`) for a call that cannot have one."""
        *names, kind = call.path.strip("/").split("/")
        match call.method, kind:
            case "POST", "_search" if len(names) <= 1:
                return replace(
                    call, body=orjson.dumps(self._filter_search(names[0] if names else None, _parse_body(call.body)))
                )
            case "POST", "_msearch" if not names:
                return replace(call, body=self._filter_searches(call.body or b""))
            case "POST", "_mget" if not names:
                return replace(
                    call,
                    body=orjson.dumps(
                        {"docs": [self._filter_read(document) for document in _parse_body(call.body)["docs"]]}
                    ),
                )
            case "GET", _ if len(names) == 2 and names[1] == "_doc" and names[0] in self._aliases:
                return replace(call, params=_with_metadata(call.params))
            case "POST", "point_in_time" if len(names) == 2 and names[1] == "_search":
                self._require_admitted(names[0].split(","))
                return call
            case "DELETE", "point_in_time" if names == ["_search"]:
                return call
            case _, "_analyze" | "_refresh" if len(names) == 1:
                self._require_admitted(names)
                return call
        raise _forbidden_request()

    def filter_answer(self, call: Call, answer: Any) -> Any:
        """Return the answer with invisible documents, read by id, replaced by missing ones.

        `call` is the call before `filter_call`.
        """
        if call.path == "/_mget":
            requested = [document["_source"] for document in _parse_body(call.body)["docs"]]
            docs = [
                self._hide_filtered(document, fields)
                for document, fields in zip(answer["docs"], requested, strict=True)
            ]
            return answer | {"docs": docs}
        if "/_doc/" in call.path:
            includes = call.params.get("_source_includes")
            return self._hide_filtered(answer, None if includes is None else includes.split(","))
        return answer

    def _require_admitted(self, names: Iterable[str]) -> None:
        if not all(name in self._visible for name in names):
            raise _forbidden_request()

    def _filter_searches(self, body: bytes) -> bytes:
        lines = [orjson.loads(line) for line in body.splitlines()]
        pairs = zip(lines[::2], lines[1::2], strict=True)
        filtered = [
            line for header, search in pairs for line in (header, self._filter_search(header.get("index"), search))
        ]
        return b"\n".join(map(orjson.dumps, filtered)) + b"\n"

    def _filter_search(self, index: str | None, search: dict[str, Any]) -> dict[str, Any]:
        """Add the filter to a search. `index` is None for a point in time, which may hold every admitted index."""
        if (index is None and "pit" not in search) or not search.keys() <= _ALLOWED_MEMBERS or "query" not in search:
            raise _forbidden_request()
        _check_aggregations(search.get("aggs", {}))
        names = list(self._visible) if index is None else index.split(",")
        self._require_admitted(names)
        if index is not None and len(names) == 1:
            clauses = [*self._visible[index].clauses, NOT_DELETED]
        else:
            by_generation = [
                {"bool": {"filter": [{"term": {"_index": name}}, *self._visible[name].clauses, NOT_DELETED]}}
                for name in names
            ]
            clauses = [{"bool": {"should": by_generation, "minimum_should_match": 1}}]
        return search | {"query": {"bool": {"must": [search["query"]], "filter": clauses}}}

    def _filter_read(self, document: dict[str, Any]) -> dict[str, Any]:
        """Add the members that decide about visibility to a document's requested members."""
        self._require_admitted([document["_index"]])
        return document | {"_source": sorted({*document["_source"], "metadata", "state"})}

    def _hide_filtered(self, document: Mapping[str, Any], fields: Sequence[str] | None) -> Mapping[str, Any]:
        if not document.get("found"):
            return document
        visible, source = self._visible.get(document["_index"]), document["_source"]
        metadata = source.get("metadata") or {}
        if (
            visible is None
            or source["state"] == DELETED
            or not satisfies_filter(visible.tree, document["_id"], metadata)
        ):
            return {"_index": document["_index"], "_id": document["_id"], "found": False}
        return document if fields is None else {**document, "_source": _pick_fields(source, fields)}


@dataclass(frozen=True, slots=True)
class _VisibleDocuments:
    tree: Filter
    clauses: tuple[Clause, ...]


def _parse_body(body: bytes | None) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(body or b"{}")
    return value


def _with_metadata(params: Mapping[str, Any]) -> dict[str, Any]:
    includes = params.get("_source_includes")
    return dict(params) if includes is None else {**params, "_source_includes": f"{includes},metadata,state"}


def _pick_fields(source: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return the named members of a source; `a.b` is the member `b` of the member `a`."""
    picked: dict[str, Any] = {}
    for name in fields:
        outer, _, inner = name.partition(".")
        if outer in source and not inner:
            picked[outer] = source[outer]
        elif inner and outer not in fields and inner in (source.get(outer) or {}):
            picked.setdefault(outer, {})[inner] = source[outer][inner]
    return picked


def _check_aggregations(aggregations: Mapping[str, Any]) -> None:
    """Raise Forbidden for an aggregation that may read documents which the query does not match."""
    for aggregation in aggregations.values():
        if not aggregation.keys() - {"aggs"} <= _ALLOWED_AGGREGATIONS:
            raise _forbidden_request()
        _check_aggregations(aggregation.get("aggs", {}))


def _forbidden_request() -> Forbidden:
    return Forbidden(
        "filtered_key", "A key with a filter cannot do this: the answer would cover documents outside its filter."
    )
