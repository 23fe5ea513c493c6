"""Retry rule of both clients: which failures are sent again, and after which delay."""

import random
import time
from typing import Any

from sparsewell_client.errors import BackendUnavailable, Overloaded, SparsewellError
from sparsewell_client.operations import Operation

FIRST_DELAY, LONGEST_DELAY = 0.25, 15.0


class Retry:
    """Delays between the attempts of one operation, for `seconds` in all."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._bound = FIRST_DELAY

    def delay(self, operation: Operation[Any], error: SparsewellError) -> float:
        """Return the delay before the next attempt, in seconds: the API's `retry_after`, else jittered back-off.

        Raises `error` when time is up or a second attempt is not safe. After 429 every operation is safe, because
        nothing was accepted. After a lost connection only idempotent operations are.
        """
        if not isinstance(error, Overloaded) and not (isinstance(error, BackendUnavailable) and operation.idempotent):
            raise error
        requested = error.extra.get("retry_after")
        delay = float(requested or random.uniform(self._bound / 2, self._bound))  # noqa: S311 (no secret)
        if time.monotonic() + delay > self._end:
            raise error
        self._bound = min(LONGEST_DELAY, self._bound * 2)
        return delay
