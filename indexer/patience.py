"""Waits for a backend that is away: jittered back-off inside a bound."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from services.errors import BackendUnavailable, Overloaded

log = logging.getLogger(__name__)

FIRST_DELAY = 0.2
LONGEST_DELAY = 5.0

T = TypeVar("T")


def patiently(call: Callable[[], T], seconds: float) -> T:
    """What `call` returns; repeated while it raises BackendUnavailable or Overloaded, for at most `seconds`.

    Then its last error is raised. Other errors are raised at once.
    """
    end = time.monotonic() + seconds
    longest = FIRST_DELAY
    told = False
    while True:
        try:
            return call()
        except (BackendUnavailable, Overloaded) as error:
            # Full jitter, so that workers that were refused together do not return together.
            delay = random.uniform(0, longest)  # noqa: S311 (not a secret)
            if time.monotonic() + delay > end:
                raise
            if not told:
                log.warning("waiting up to %.0f s: %s", seconds, error)
                told = True
        time.sleep(delay)
        longest = min(LONGEST_DELAY, longest * 2)
