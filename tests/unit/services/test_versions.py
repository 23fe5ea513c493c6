"""External versions order everything that can happen to a document."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services import versions

VERSION = st.integers(0, versions.LARGEST_CLIENT_VERSION)


@given(VERSION)
def test_all_versions_fit_a_lucene_long(version: int) -> None:
    assert versions.encoded(version) < 2**63


@given(VERSION, VERSION)
def test_a_newer_raw_write_beats_every_encoding_of_an_older_one(one: int, other: int) -> None:
    if one > other:
        assert versions.raw(one) > versions.encoded(other)


@given(VERSION)
def test_transitions_lie_between_raw_and_encoded(version: int) -> None:
    external = versions.raw(version)
    for _ in range(1022):
        external = versions.transition(external)
        assert versions.client(external) == version
        assert versions.raw(version) < external < versions.encoded(version)
    with pytest.raises(ValueError, match="1,022"):
        versions.transition(external)


def test_the_clock_never_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = versions.Clock()
    moments = iter([5_000, 5_000, 4_000, 9_000])
    monkeypatch.setattr(versions.time, "time_ns", lambda: next(moments))
    assert [clock.next() for _ in range(4)] == [5, 6, 7, 9]
