"""Retries of transient errors: exponential back-off with full jitter, within a time limit."""

import logging
import random
from collections.abc import Callable
from typing import Final, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay

from services.errors import BackendUnavailable, Overloaded, SparsewellError

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS: Final = 0.2
MAX_DELAY_SECONDS: Final = 5.0
# Errors of an unavailable or busy backend. A retry does not help against any other error.
TRANSIENT_ERRORS: Final = (BackendUnavailable, Overloaded)

T = TypeVar("T")


def backoff_seconds(failures: int) -> float:
    """Return the delay in seconds after `failures` failures in a row (at least one).

    Full jitter keeps processes that failed together from returning together.
    """
    return jitter(min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 30)))


def jitter(longest: float) -> float:
    """Return a random number of seconds, at most `longest`."""
    return random.uniform(0, longest)  # noqa: S311 (not a secret)


def retry(call: Callable[[], T], seconds: float, report: Callable[[str], None] = log.warning) -> T:
    """Return the result of `call`, repeated for at most `seconds` while it raises a transient error.

    The delay before each retry is the error's `retry_after` (seconds) or else `backoff_seconds`. The last error is
    raised when the next delay would exceed the limit; every other error at once. `report` receives the first error, and
    each one whose code differs from the previous.
    """
    reported = ""

    def before_sleep(state: RetryCallState) -> None:
        nonlocal reported
        error = _transient_error(state)
        if error.code != reported:
            reported = error.code
            report(f"waiting up to {seconds:.0f} s: {error}")

    repeated = Retrying(
        retry=retry_if_exception_type(TRANSIENT_ERRORS),
        wait=_wait,
        stop=stop_before_delay(seconds),
        before_sleep=before_sleep,
        reraise=True,
    )
    return repeated(call)


def _wait(state: RetryCallState) -> float:
    return float(_transient_error(state).extra.get("retry_after") or backoff_seconds(state.attempt_number))


def _transient_error(state: RetryCallState) -> SparsewellError:
    error = state.outcome and state.outcome.exception()
    if not isinstance(error, SparsewellError):  # `retry_if_exception_type` lets only transient errors through
        raise TypeError(f"{error!r} is not a transient error")
    return error
