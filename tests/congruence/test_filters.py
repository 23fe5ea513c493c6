"""Filters on a real node match exactly the documents that satisfy them when checked one by one."""

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from services.errors import InvalidInput
from services.filters.parsing import FilterLimits, parse_filter
from services.opensearch.queries import NOT_DELETED, add_filter, build_filter_clauses, lexical_query, sparse_query
from tests.congruence import shelf
from tests.congruence.node_index import NodeIndex, query_vector

LIMITS = FilterLimits(depth=20, conditions=200, values=500)
DOCUMENTS = shelf.DOCUMENTS
EVERYTHING: dict[str, Any] = {"match_all": {}}
LEXICAL, SPARSE = lexical_query("word"), sparse_query(query_vector({6: 2.0}))


def found(index: NodeIndex, *queries: dict[str, Any]) -> list[dict[str, float]]:
    lists = index.ask(queries, 2 * len(DOCUMENTS))
    assert all(len({name for name, _ in hits}) == len(hits) for hits in lists)
    return [dict(hits) for hits in lists]


@pytest.fixture(scope="module")
def unfiltered(shelf_index: NodeIndex) -> dict[str, float]:
    return found(shelf_index, SPARSE)[0]


@settings(max_examples=40, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(st.lists(shelf.filters(), min_size=8, max_size=8))
def test_a_filter_finds_exactly_what_satisfies_it(
    shelf_index: NodeIndex, unfiltered: dict[str, float], some: list[dict[str, Any]]
) -> None:
    """Send eight filters a request, each alone and with each kind of list."""
    read = []
    for written in some:
        try:
            read.append((written, build_filter_clauses(parse_filter(written, shelf.FIELDS, LIMITS))))
        except InvalidInput as error:
            # no document satisfies a contradictory range (but a `not` around it may match)
            assert error.code == "contradictory_range"
    lists = found(shelf_index, *(query for _, clauses in read for query in _queries(clauses)))
    for (written, _), alone, lexical, sparse in zip(read, lists[::3], lists[1::3], lists[2::3], strict=True):
        expected = {name for name, metadata in DOCUMENTS.items() if shelf.holds(written, name, "encoded", metadata)}
        assert alone.keys() == expected, written
        assert lexical.keys() == expected, written
        assert sparse == {name: score for name, score in unfiltered.items() if name in expected}, written


def _queries(clauses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [add_filter(EVERYTHING, [*clauses, NOT_DELETED]), add_filter(LEXICAL, clauses), add_filter(SPARSE, clauses)]


def test_without_a_filter_the_query_is_what_it_was() -> None:
    assert add_filter(LEXICAL, build_filter_clauses(None)) is LEXICAL


def test_a_filter_alone_never_finds_a_tombstone(shelf_index: NodeIndex) -> None:
    for written in ({"not": {"field": "genre", "is": "poem"}}, {"field": "genre", "exists": False}):
        clauses = build_filter_clauses(parse_filter(written, shelf.FIELDS, LIMITS))
        all_of_them, alive = found(
            shelf_index, add_filter(EVERYTHING, clauses), add_filter(EVERYTHING, [*clauses, NOT_DELETED])
        )
        assert any(name.startswith("gone") for name in all_of_them)
        assert alive.keys() <= DOCUMENTS.keys()
