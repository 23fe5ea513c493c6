"""Compare facets and order on a real node with those from a list of values and with a naive implementation."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from query_api.schemas.search_request import Facet, SortKey
from query_api.search.counting import (
    FacetGroup,
    count_among_matches,
    group_facets,
    read_among_candidates,
    read_among_matches,
)
from query_api.search.executor import Key
from query_api.search.facets import parse_facets
from query_api.search.sorting import SortField, build_sort, parse_sort, sort_documents
from query_api.search.validation import Selection
from services.dates import CALENDAR_UNITS
from services.filters.parsing import FilterLimits, parse_filter
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.queries import (
    NOT_DELETED,
    FieldValues,
    add_filter,
    build_docvalue_fields,
    build_filter_clauses,
    build_search_body,
    read_field_values,
)
from services.settings import Settings
from tests.congruence import shelf
from tests.congruence.node_index import SECONDS, NodeIndex

LIMITS = FilterLimits(depth=8, conditions=100, values=100)
SETTINGS = Settings(max_facet_values=2000)
MOST = SETTINGS.max_facet_values
COLUMNS = {name: kind for name, kind in shelf.FIELDS.items() if kind != "text"}
FILTER = {
    "all": [
        {"field": "genre", "any_of": shelf.GENRES[:5]},
        {"field": "price", "range": {"gte": -4}},
        {"any": [{"field": "lent", "is": True}, {"field": "year", "exists": True}]},
    ]
}


def ask(client: SyncSearchClient, index: NodeIndex, search: dict[str, Any]) -> dict[str, Any]:
    call = Call("POST", f"/{index.generation.physical}/_search", orjson.dumps(search), timeout=SECONDS)
    answer: dict[str, Any] = client.send(call)
    return answer


def chosen(written: dict[str, Any] | None, facets: dict[str, dict[str, Any]]) -> Selection:
    tree = None if written is None else parse_filter(written, shelf.FIELDS, LIMITS)
    requested = {field: Facet.model_validate(facet) for field, facet in facets.items()}
    counted = parse_facets(requested, shelf.FIELDS, SETTINGS)
    return Selection(tree, tuple(build_filter_clauses(tree)), (), counted, COLUMNS)


def documents_of(client: SyncSearchClient, index: NodeIndex, group: FacetGroup) -> dict[Key, FieldValues]:
    search = build_search_body(add_filter(NOT_DELETED, group.clauses), 2000, False, SECONDS) | {
        "docvalue_fields": build_docvalue_fields(COLUMNS)
    }
    hits = ask(client, index, search)["hits"]["hits"]
    return {(hit["_index"], hit["_id"]): read_field_values(hit, COLUMNS) for hit in hits}


def both_ways(client: SyncSearchClient, index: NodeIndex, selection: Selection) -> dict[str, Any]:
    """Return the counts after asserting that the engine and the list of candidates agree."""
    counted = read_among_matches(
        [ask(client, index, count_among_matches(NOT_DELETED, selection, SECONDS))], selection, MOST
    )
    listed = [(group, documents_of(client, index, group)) for group in group_facets(selection)]
    here = read_among_candidates(listed, selection, MOST)
    assert here["facets"] == counted["facets"]
    assert here["counted"]["documents"] == counted["counted"]["documents"]
    facets: dict[str, Any] = counted["facets"]
    return facets


def satisfying(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        metadata
        for name, metadata in shelf.DOCUMENTS.items()
        if all(shelf.holds(part, name, "encoded", metadata) for part in parts)
    ]


def test_values(search_client: SyncSearchClient, shelf_index: NodeIndex) -> None:
    found = both_ways(
        search_client,
        shelf_index,
        chosen(
            FILTER,
            {
                "genre": {"terms": 20, "ignore_own_filter": True},
                "lent": {"terms": 2},
                "code": {"terms": 400},
                "price": {"terms": 1500, "ignore_own_filter": True},
            },
        ),
    )
    parts = FILTER["all"]
    for field, documents in [
        ("genre", satisfying(*parts[1:])),
        ("lent", satisfying(*parts)),
        ("code", satisfying(*parts)),
        ("price", satisfying(parts[0], parts[2])),
    ]:
        naive = Counter(value for one in documents for value in set(shelf.values(one, field)))
        assert {bucket["value"]: bucket["count"] for bucket in found[field]["buckets"]} == naive, field
        counts = [bucket["count"] for bucket in found[field]["buckets"]]
        assert counts == sorted(counts, reverse=True)
        assert found[field]["other"] == 0
        assert found[field]["exact"] is True


def test_the_most_frequent_of_many_values_over_two_shards(
    search_client: SyncSearchClient, shelf_index: NodeIndex
) -> None:
    naive = Counter(value for one in satisfying() for value in set(shelf.values(one, "code")))
    for most in (1, 7, 60):
        selection = chosen(None, {"code": {"terms": most}})
        answer = ask(search_client, shelf_index, count_among_matches(NOT_DELETED, selection, SECONDS))
        facet = read_among_matches([answer], selection, MOST)["facets"]["code"]
        assert sum(bucket["count"] for bucket in facet["buckets"]) + facet["other"] == sum(naive.values())
        if facet["exact"]:
            best = sorted(naive.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
            assert [(bucket["value"], bucket["count"]) for bucket in facet["buckets"]] == best


def test_ranges_count_what_the_same_filter_finds(search_client: SyncSearchClient, shelf_index: NodeIndex) -> None:
    chance = random.Random(5)
    numbers: list[dict[str, Any]] = [{"lt": 0}, {"gte": 0}, {"gt": 0, "lte": 2}, {"gte": -0.0, "lte": 0}, {"gt": 2**53}]
    dates: list[dict[str, Any]] = []
    while len(dates) < 20:
        low, high = (chance.choice(shelf.MOMENTS) for _ in range(2))
        if low.last < high.first:
            dates += [{"gt": low.text, "lt": high.text}] if low.last + 1 < high.first else []
            dates += [{"gte": low.text, "lte": high.text}, {"gte": low.text}, {"lte": low.text}]
    found = both_ways(
        search_client, shelf_index, chosen(FILTER, {"year": {"ranges": numbers}, "printed": {"ranges": dates}})
    )
    for field, ranges in (("year", numbers), ("printed", dates)):
        expected = [len(satisfying(FILTER, {"field": field, "range": one})) for one in ranges]
        assert found[field]["buckets"] == [
            {"range": one, "count": count} for one, count in zip(ranges, expected, strict=True)
        ]


def test_stretches_of_the_calendar(search_client: SyncSearchClient, shelf_index: NodeIndex) -> None:
    moments = {one.text: one.first for one in shelf.MOMENTS}
    for unit in CALENDAR_UNITS:
        (facet,) = both_ways(search_client, shelf_index, chosen(None, {"printed": {"dates": unit}})).values()
        naive: Counter[datetime] = Counter()
        for one in satisfying():
            naive.update({_begun(moments[text], unit) for text in shelf.values(one, "printed")})
        assert {_read(bucket["range"]["gte"]): bucket["count"] for bucket in facet["buckets"]} == naive
        for bucket in facet["buckets"]:
            # a displayed value is a filter that matches as many documents
            selection = chosen({"field": "printed", "range": bucket["range"]}, {})
            answer = ask(search_client, shelf_index, count_among_matches(NOT_DELETED, selection, SECONDS))
            assert read_among_matches([answer], selection, MOST)["counted"]["documents"] == bucket["count"]
            if unit in ("day", "hour"):
                break


def _begun(milliseconds: int, unit: str) -> datetime:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    hour = at.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    return {
        "hour": hour, "day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1),
        "quarter": day.replace(day=1, month=(day.month - 1) // 3 * 3 + 1), "year": day.replace(day=1, month=1),
    }[unit]  # fmt: skip


def _read(text: str) -> datetime:
    read = datetime.fromisoformat(text)
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def test_order_in_the_engine_and_here(search_client: SyncSearchClient, shelf_index: NodeIndex) -> None:
    # (the years include both zeros of floating point, which differ only in OpenSearch)
    orders: list[list[dict[str, Any]]] = [
        [{"field": field, "order": order}, {"field": "_score"}]
        for field in sorted(COLUMNS.keys() - {"year"})
        for order in ("asc", "desc")
    ]
    orders += [[{"field": "lent"}, {"field": "genre", "order": "desc"}, {"field": "_score", "order": "asc"}], []]
    # each document has its own score, so that only the asserted ties exist
    scored = {"bool": {"should": [{"rank_feature": {"field": f"sparse.{n}", "linear": {}}} for n in (5, 6)]}}
    for written in orders:
        keys: tuple[SortField, ...] = parse_sort(
            [SortKey.model_validate(one) for one in written], shelf.FIELDS, scored=True
        )
        search = build_search_body(scored, 2000, False, SECONDS) | {"docvalue_fields": build_docvalue_fields(COLUMNS)}
        listed = ask(search_client, shelf_index, search)["hits"]["hits"]
        values = {hit["_id"]: read_field_values(hit, COLUMNS) for hit in listed}
        here = sort_documents([(hit["_id"], hit["_score"]) for hit in listed], keys, values)
        engine = ask(search_client, shelf_index, search | {"sort": build_sort(keys, scored=True)})["hits"]["hits"]
        assert len({name for name, _ in here}) == len(shelf.DOCUMENTS)
        # (weights are truncated, so a few documents have the same score and may change places)
        assert [_sorted_by(keys, values[name], score) for name, score in here] == [
            _sorted_by(keys, values[hit["_id"]], hit["_score"]) for hit in engine
        ], written


def _sorted_by(keys: tuple[SortField, ...], values: FieldValues, score: float) -> list[Any]:
    picked = [(max if key.descending else min)(values.get(key.field, [None])) for key in keys if key.kind]
    return [*picked, score]
