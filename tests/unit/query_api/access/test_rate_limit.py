"""Token buckets, and limits on failures per source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.access.rate_limit import FailureLimiter, TokenBucket


@given(st.floats(0.1, 100), st.integers(1, 50), st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5)), max_size=60))
def test_a_bucket_never_exceeds_burst_and_rate(rate: float, burst: int, asked: list[tuple[float, int]]) -> None:
    bucket, now, taken = TokenBucket.full(rate, burst, 0.0), 0.0, 0
    for pause, amount in asked:
        now += pause
        wait = bucket.take(amount, now)
        if wait == 0:
            taken += amount
        else:  # it says when there is enough, and means it
            assert bucket.take(amount, now + wait * 0.99) > 0
            bucket.at = now if bucket.at < now else bucket.at
            now = bucket.at
        assert taken <= burst + rate * now + 5 + 1e-6


def test_a_full_bucket_lends_more_than_it_holds() -> None:
    bucket = TokenBucket.full(1, 10, 0)
    assert bucket.take(25, 0) == 0 and bucket.tokens == -15
    assert bucket.take(1, 0) == pytest.approx(16)
    assert bucket.take(1, 16.1) == 0


def test_failures_are_counted_per_source_in_bounded_memory() -> None:
    attempts = FailureLimiter(rate=1, burst=3, most=100)
    assert [attempts.failed("a", 0) for _ in range(3)] == [0, 0, 0]
    assert attempts.exhausted("a", 0) and attempts.failed("a", 0) == pytest.approx(1)
    assert not attempts.exhausted("b", 0) and attempts.failed("b", 0) == 0
    assert not attempts.exhausted("a", 1.5) and attempts.failed("a", 1.5) == 0
    for n in range(10_000):
        attempts.failed(str(n), 2)
    assert len(attempts) == 100
