"""The one place where a caller's own filter joins what is asked of OpenSearch: every request of such a caller passes
through here, and one of a kind that is not known here is refused.

So no stage of a search, and none that is added later, can leave the filter out; see docs/decisions/0201. Pure.
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

# Members of a search that show, order or count nothing but what its query matches. Suggesters, for one, do not.
_MEMBERS: Final = frozenset(
    {
        "query", "size", "from", "_source", "sort", "search_after", "track_total_hits", "timeout", "explain", "version",
        "docvalue_fields", "rescore", "collapse", "pit", "slice", "aggs",
    }
)  # fmt: skip
# Aggregations of what the query matches; `global` and `significant_terms` look at other documents too.
_COUNTS: Final = frozenset({"filter", "filters", "terms", "date_histogram"})


@dataclass(frozen=True, slots=True)
class _VisibleDocuments:
    tree: Filter
    clauses: tuple[Clause, ...]


class DocumentLevelSecurity:
    """What one caller may see of the generations that it asks about (`admit`); of others, nothing."""

    def __init__(self) -> None:
        self._seen: dict[str, _VisibleDocuments] = {}
        self._aliases: set[str] = set()

    def admit(self, generation: Generation, tree: Filter) -> None:
        """Lets a generation be asked, for the documents that satisfy the filter."""
        self._seen[generation.physical] = _VisibleDocuments(tree, tuple(build_filter_clauses(tree)))
        self._aliases.add(generation.alias)

    def confined(self, call: Call) -> Call:
        """The call with the filter. Raises Forbidden (`filtered_key`) for one that cannot have it."""
        *names, kind = call.path.strip("/").split("/")
        match call.method, kind:
            case "POST", "_search" if len(names) <= 1:
                return replace(
                    call, body=orjson.dumps(self._search(names[0] if names else None, _parse_body(call.body)))
                )
            case "POST", "_msearch" if not names:
                return replace(call, body=self._searches(call.body or b""))
            case "POST", "_mget" if not names:
                return replace(
                    call, body=orjson.dumps({"docs": [self._read(one) for one in _parse_body(call.body)["docs"]]})
                )
            case "GET", _ if len(names) == 2 and names[1] == "_doc" and names[0] in self._aliases:
                return replace(call, params=_with_metadata(call.params))
            case "POST", "point_in_time" if len(names) == 2 and names[1] == "_search":
                self._known(names[0].split(","))
                return call
            case "DELETE", "point_in_time" if names == ["_search"]:
                return call
            case _, "_analyze" | "_refresh" if len(names) == 1:
                self._known(names)
                return call
        raise _forbidden_request()

    def answered(self, call: Call, answer: Any) -> Any:
        """The answer without documents that were read by id and are not to be seen, as if there were none.

        `call` is what was asked for before it was confined.
        """
        if call.path == "/_mget":
            wanted = [one["_source"] for one in _parse_body(call.body)["docs"]]
            docs = [self._shown(one, fields) for one, fields in zip(answer["docs"], wanted, strict=True)]
            return answer | {"docs": docs}
        if "/_doc/" in call.path:
            includes = call.params.get("_source_includes")
            return self._shown(answer, None if includes is None else includes.split(","))
        return answer

    def _known(self, names: Iterable[str]) -> None:
        if not all(name in self._seen for name in names):
            raise _forbidden_request()

    def _searches(self, body: bytes) -> bytes:
        lines = [orjson.loads(line) for line in body.splitlines()]
        pairs = zip(lines[::2], lines[1::2], strict=True)
        confined = [part for header, search in pairs for part in (header, self._search(header.get("index"), search))]
        return b"\n".join(map(orjson.dumps, confined)) + b"\n"

    def _search(self, index: str | None, search: dict[str, Any]) -> dict[str, Any]:
        """A search with the filter around its query; `index` None: of a snapshot, which may hold any of them."""
        if (index is None and "pit" not in search) or not search.keys() <= _MEMBERS or "query" not in search:
            raise _forbidden_request()
        _check_aggregations(search.get("aggs", {}))
        names = list(self._seen) if index is None else index.split(",")
        self._known(names)
        if index is not None and len(names) == 1:
            clauses = [*self._seen[index].clauses, NOT_DELETED]
        else:
            each = [
                {"bool": {"filter": [{"term": {"_index": name}}, *self._seen[name].clauses, NOT_DELETED]}}
                for name in names
            ]
            clauses = [{"bool": {"should": each, "minimum_should_match": 1}}]
        return search | {"query": {"bool": {"must": [search["query"]], "filter": clauses}}}

    def _read(self, document: dict[str, Any]) -> dict[str, Any]:
        """A document to be read with what tells whether it may be seen."""
        self._known([document["_index"]])
        return document | {"_source": sorted({*document["_source"], "metadata", "state"})}

    def _shown(self, found: Mapping[str, Any], fields: Sequence[str] | None) -> Mapping[str, Any]:
        if not found.get("found"):
            return found
        seen, source = self._seen.get(found["_index"]), found["_source"]
        metadata = source.get("metadata") or {}
        if seen is None or source["state"] == DELETED or not satisfies_filter(seen.tree, found["_id"], metadata):
            return {"_index": found["_index"], "_id": found["_id"], "found": False}
        return found if fields is None else {**found, "_source": _pick_fields(source, fields)}


def _parse_body(body: bytes | None) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(body or b"{}")
    return value


def _with_metadata(params: Mapping[str, Any]) -> dict[str, Any]:
    includes = params.get("_source_includes")
    return dict(params) if includes is None else {**params, "_source_includes": f"{includes},metadata,state"}


def _pick_fields(source: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """The named members of a source; `a.b`: of the member `a` the member `b` alone."""
    found: dict[str, Any] = {}
    for name in fields:
        outer, _, inner = name.partition(".")
        if outer in source and not inner:
            found[outer] = source[outer]
        elif inner and outer not in fields and inner in (source.get(outer) or {}):
            found.setdefault(outer, {})[inner] = source[outer][inner]
    return found


def _check_aggregations(aggregations: Mapping[str, Any]) -> None:
    """Raises Forbidden for a count that could look beyond what the query matches."""
    for one in aggregations.values():
        if not one.keys() - {"aggs"} <= _COUNTS:
            raise _forbidden_request()
        _check_aggregations(one.get("aggs", {}))


def _forbidden_request() -> Forbidden:
    return Forbidden("filtered_key", "A key with a filter cannot do this: what it would be told is of other documents.")
