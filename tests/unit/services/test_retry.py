"""Tests of retries with backoff."""

import time

import pytest

from services.errors import BackendUnavailable, Conflict, Overloaded, SparsewellError
from services.retry import FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS, backoff_seconds, retry


class Call:
    """Raise these errors one after another, then return "done"."""

    def __init__(self, *errors: SparsewellError) -> None:
        self.errors = list(errors)
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def busy(code: str = "busy") -> Overloaded:
    return Overloaded(code, "Busy.", retry_after=0.01)


def test_a_call_is_retried_until_it_succeeds_and_an_error_is_reported_once() -> None:
    call, said = Call(busy(), busy(), busy("full"), busy()), list[str]()
    assert retry(call, 5, said.append) == "done"
    assert call.count == 5
    assert [line.partition(":")[0] for line in said] == ["waiting up to 5 s"] * 3
    assert [code in line for code, line in zip(["busy", "full", "busy"], said, strict=True)] == [True] * 3


def test_the_last_error_is_raised_at_the_deadline() -> None:
    def away() -> None:
        raise BackendUnavailable("away", "Away.")

    began = time.monotonic()
    with pytest.raises(BackendUnavailable):
        retry(away, 0.3, lambda message: None)
    assert time.monotonic() - began < 1


def test_without_time_a_call_is_made_once() -> None:
    call = Call(busy(), busy())
    with pytest.raises(Overloaded):
        retry(call, 0)
    assert call.count == 1


def test_no_wait_exceeds_the_deadline() -> None:
    call = Call(Overloaded("busy", "Busy.", retry_after=60))
    began = time.monotonic()
    with pytest.raises(Overloaded):
        retry(call, 30)
    assert time.monotonic() - began < 1


def test_a_permanent_error_is_raised_at_once() -> None:
    call = Call(Conflict("there", "There."))
    with pytest.raises(Conflict):
        retry(call, 5)
    assert call.count == 1


def test_retry_delays_grow_up_to_a_limit() -> None:
    first = [backoff_seconds(1) for _ in range(200)]
    late = [backoff_seconds(failures) for failures in (6, 60, 6000) for _ in range(200)]
    assert max(first) <= FIRST_DELAY_SECONDS < max(late) <= MAX_DELAY_SECONDS
    assert min(first) < FIRST_DELAY_SECONDS / 2, "full jitter: from nothing to the longest wait"
