"""Token buckets and the limit of failed authentications."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.access.rate_limit import FailureLimiter, TokenBucket


@given(st.floats(0.1, 100), st.integers(1, 50), st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5)), max_size=60))
def test_a_bucket_never_exceeds_burst_and_rate(rate: float, burst: int, requests: list[tuple[float, int]]) -> None:
    bucket, now, taken = TokenBucket.full(rate, burst, 0.0), 0.0, 0
    for pause, amount in requests:
        now += pause
        wait = bucket.take(amount, now)
        if wait == 0:
            taken += amount
        else:  # the stated wait is exact
            assert bucket.take(amount, now + wait * 0.99) > 0
            bucket.at = now if bucket.at < now else bucket.at
            now = bucket.at
        assert taken <= burst + rate * now + 5 + 1e-6


def test_a_full_bucket_lends_more_than_it_holds() -> None:
    bucket = TokenBucket.full(1, 10, 0)
    assert bucket.take(25, 0) == 0 and bucket.tokens == -15
    assert bucket.take(1, 0) == pytest.approx(16)
    assert bucket.take(1, 16.1) == 0


def test_failures_of_one_do_not_count_for_another_and_memory_is_bounded() -> None:
    attempts = FailureLimiter(rate=1, burst=3, max_sources=100)
    assert [attempts.record_failure("a", 0) for _ in range(3)] == [0, 0, 0]
    assert attempts.is_exhausted("a", 0) and attempts.record_failure("a", 0) == pytest.approx(1)
    assert not attempts.is_exhausted("b", 0) and attempts.record_failure("b", 0) == 0
    assert not attempts.is_exhausted("a", 1.5) and attempts.record_failure("a", 1.5) == 0
    for n in range(10_000):
        attempts.record_failure(str(n), 2)
    assert len(attempts) == 100
