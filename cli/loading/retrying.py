"""Sends again what may succeed later."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from services.errors import BackendUnavailable, Overloaded

FIRST_DELAY = 0.25
LONGEST_DELAY = 15.0

T = TypeVar("T")


def retrying(call: Callable[[], T], seconds: float, say: Callable[[str], None]) -> T:
    """What `call` returns. While it raises Overloaded or BackendUnavailable it is repeated, with jittered back-off or
    after the server's own `retry_after`, until `seconds` have passed; then the last error is raised."""
    end = time.monotonic() + seconds
    longest = FIRST_DELAY
    told = ""
    while True:
        try:
            return call()
        except (Overloaded, BackendUnavailable) as error:
            delay = error.extra.get("retry_after") or random.uniform(longest / 2, longest)  # noqa: S311 (no secret)
            if time.monotonic() + delay > end:
                raise
            if error.code != told:
                say(f"waiting, at most {seconds:.0f} s: {error}")
                told = error.code
        time.sleep(delay)
        longest = min(LONGEST_DELAY, longest * 2)
