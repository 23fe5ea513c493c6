"""Retries of calls that may succeed later: exponential back-off with full jitter, within a time limit."""

import logging
import random
from collections.abc import Callable
from typing import Final, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay

from services.errors import BackendUnavailable, Overloaded, SparsewellError

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS: Final = 0.2
MAX_DELAY_SECONDS: Final = 5.0
# Errors of a backend that is away or busy. All other errors come again, however often the call is repeated.
TRANSIENT_ERRORS: Final = (BackendUnavailable, Overloaded)

T = TypeVar("T")


def backoff_seconds(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row, one at least.

    Full jitter, so that processes that were refused together do not return together.
    """
    return jitter(min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 30)))


def jitter(longest: float) -> float:
    """Return a random number of seconds, at most `longest`."""
    return random.uniform(0, longest)  # noqa: S311 (not a secret)


def retry(call: Callable[[], T], seconds: float, say: Callable[[str], None] = log.warning) -> T:
    """Return what `call` returns. Repeat it while it raises a transient error, for at most `seconds`.

    The wait before each repetition is the error's own `retry_after` (seconds) or else `backoff`. Raise the last error
    when the next wait would not end in time, and every other error at once. `say` is told of the first error, and of
    each one whose code differs from the one before.
    """
    told = ""

    def before_sleep(state: RetryCallState) -> None:
        nonlocal told
        error = _transient_error(state)
        if error.code != told:
            told = error.code
            say(f"waiting up to {seconds:.0f} s: {error}")

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
    if not isinstance(error, SparsewellError):  # (only transient errors are waited for)
        raise TypeError(f"{error!r} is no transient error")
    return error
