"""The decision to admit a request, from a few numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.ingest.backpressure import (
    MAX_WAIT_SECONDS,
    UNKNOWN_WAIT_SECONDS,
    BacklogSample,
    InFlightRequests,
    backlog_refusal,
    count_waiting_documents,
    index_refusal,
    retry_after_seconds,
)
from services.encoders.manifest import WindowSettings
from services.errors import Overloaded
from services.index_spec import EncoderIdentity, Generation, IndexSpec

GENERATION = Generation(
    index="docs", number=1, physical="sparsewell-docs.g000001", spec=IndexSpec.model_validate({}),
    encoder=EncoderIdentity(name="standin", fingerprint="0" * 16), window=WindowSettings(pieces=64, overlap=8),
    created_at="2026-01-01T00:00:00+00:00",
)  # fmt: skip


def looks(*pending: int | None) -> list[BacklogSample]:
    return [BacklogSample(float(at), count, 0) for at, count in enumerate(pending)]


def test_below_the_limits_everybody_is_let_in() -> None:
    assert backlog_refusal([], 10, 10) is None
    assert backlog_refusal([BacklogSample(0, 9, 9)], 10, 10) is None


def test_what_nobody_knows_refuses_nobody() -> None:
    assert backlog_refusal([BacklogSample(0, None, None)], 1, 1) is None
    assert backlog_refusal([BacklogSample(0, 5000, 5000), BacklogSample(1, None, None)], 1, 1) is None


@pytest.mark.parametrize(
    ("look", "code", "limit"),
    [(BacklogSample(0, 10, 0), "too_many_pending", 10), (BacklogSample(0, 0, 20), "queue_full", 20)],
)
def test_at_a_limit_the_code_says_which(look: BacklogSample, code: str, limit: int) -> None:
    error = backlog_refusal([look], 10, 20)
    assert isinstance(error, Overloaded)
    assert (error.code, error.extra["limit"], error.extra["retry_after"]) == (code, limit, UNKNOWN_WAIT_SECONDS)


def test_the_wait_is_told_from_how_fast_it_shrinks() -> None:
    # The backlog shrinks by 100 a second. It is 500 over the limit, and a hundredth of the limit must be free.
    error = backlog_refusal(looks(1700, 1600, 1500), 1000, 10)
    assert error is not None
    assert error.extra["retry_after"] == 6
    growing = backlog_refusal(looks(1000, 1600), 1000, 10)
    assert growing is not None
    assert growing.extra["retry_after"] == UNKNOWN_WAIT_SECONDS


@given(st.integers(1, 10**9), st.integers(0, 10**9), st.one_of(st.none(), st.floats(1e-6, 1e9)))
def test_the_wait_is_bounded(limit: int, over: int, drained: float | None) -> None:
    assert 1 <= retry_after_seconds(limit + over, limit, drained) <= MAX_WAIT_SECONDS


def test_documents_that_are_not_counted_yet_are_added() -> None:
    before, after = (
        BacklogSample(10, 100, 0, journalled=0),
        BacklogSample(12, 100, 0, journalled=500),
    )  # 500 documents arrived before a refresh
    assert count_waiting_documents([before, after], 12.5, 520) == 620
    assert count_waiting_documents([before, after], 15.0, 520) == 120  # the last count includes them
    assert count_waiting_documents([BacklogSample(0, 100, 0, 0)], 60, 7) == 107
    assert count_waiting_documents([before, BacklogSample(12, None, 0, 500)], 12.5, 520) is None


def test_requests_at_once_are_bounded_and_places_come_back_however_they_end() -> None:
    fleet = InFlightRequests(2, 100)
    with fleet.slot(), fleet.slot():
        with pytest.raises(Overloaded) as caught, fleet.slot():
            pass
        assert caught.value.code == "too_many_requests"
    with pytest.raises(ZeroDivisionError), fleet.slot() as slot:
        slot.reserve(50)
        raise ZeroDivisionError
    assert (fleet.requests, fleet.bytes) == (0, 0)


def test_bytes_at_once_are_bounded_except_for_one_alone() -> None:
    fleet = InFlightRequests(5, 100)
    with fleet.slot() as alone:
        alone.reserve(150)
        with fleet.slot() as other, pytest.raises(Overloaded) as caught:
            other.reserve(1)
        assert caught.value.code == "too_many_bytes"
    with fleet.slot() as first, fleet.slot() as second:
        first.reserve(60)
        second.reserve(40)
        second.reserve(10)  # a smaller amount keeps the reservation
        assert fleet.bytes == 100
        with pytest.raises(Overloaded):
            first.reserve(61)
    assert fleet.bytes == 0


@pytest.mark.parametrize(
    ("own", "others", "refused"),
    [(49, 0, False), (50, 0, True), (33, 33, False), (34, 33, True), (0, 99, False), (1, 99, True)],
)
def test_an_index_may_have_as_much_as_there_is_room_left(own: int, others: int, refused: bool) -> None:
    error = index_refusal(GENERATION, own, own + others, 100)
    assert (error is not None) == refused
    if error is not None:
        assert (error.code, error.extra["limit"]) == ("too_many_pending", 100)
        assert "'docs'" in error.detail
    assert index_refusal(GENERATION, own, None, 100) is None, "an unknown count refuses nothing"


def test_two_full_indexes_leave_a_third_to_the_others() -> None:
    first = second = 0
    while index_refusal(GENERATION, first, first + second, 900) is None:
        first += 1
        second += index_refusal(GENERATION, second, first + second, 900) is None
    assert (first, second) == (300, 300)
