"""External versions order everything that can happen to a document."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.documents import document

VERSION = st.integers(0, document.MAX_CLIENT_VERSION)


@given(VERSION)
def test_all_versions_fit_a_lucene_long(version: int) -> None:
    assert document.encoded_version(version) < 2**63


@given(VERSION, VERSION)
def test_a_newer_raw_write_beats_every_encoding_of_an_older_one(one: int, other: int) -> None:
    if one > other:
        assert document.raw_version(one) > document.encoded_version(other)


@given(VERSION)
def test_transitions_lie_between_raw_and_encoded(version: int) -> None:
    external = document.raw_version(version)
    for _ in range(1022):
        external = document.next_transition(external)
        assert document.client_version(external) == version
        assert document.raw_version(version) < external < document.encoded_version(version)
    with pytest.raises(ValueError, match="1,022"):
        document.next_transition(external)


def test_the_clock_never_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = document.VersionClock()
    moments = iter([5_000, 5_000, 4_000, 9_000])
    monkeypatch.setattr(document.time, "time_ns", lambda: next(moments))
    assert [clock.next() for _ in range(4)] == [5, 6, 7, 9]
