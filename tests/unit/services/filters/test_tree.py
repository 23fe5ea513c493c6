"""Filters on a single document, compared with the oracle of the congruence tests."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.errors import InvalidInput
from services.filters.parsing import FilterLimits, parse_filter
from services.filters.tree import STATE, MatchesWords, iter_conditions, satisfies_filter
from tests.congruence import shelf

LIMITS = FilterLimits(depth=20, conditions=200, values=500)


@settings(max_examples=300, derandomize=True)
@given(shelf.filters(), st.sampled_from(sorted(shelf.DOCUMENTS)))
def test_satisfying_a_filter_agrees_with_the_oracle(written: dict[str, Any], first: str) -> None:
    try:
        tree = parse_filter(written, shelf.FIELDS, LIMITS)
    except InvalidInput:
        return
    if any(isinstance(one, MatchesWords) or one.field == STATE for one in iter_conditions(tree)):
        return
    names = sorted(shelf.DOCUMENTS)
    at = names.index(first)
    for name in names[at : at + 40]:
        metadata = shelf.DOCUMENTS[name]
        assert satisfies_filter(tree, name, metadata) == shelf.holds(written, name, "encoded", metadata), (
            written,
            metadata,
        )


def test_words_cannot_be_decided_from_the_document() -> None:
    with pytest.raises(TypeError):
        satisfies_filter(MatchesWords("blurb", "sea"), "1", {})
