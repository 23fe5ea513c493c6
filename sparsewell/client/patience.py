"""When to send again, and after how long: the same rule for both clients."""

import random
import time
from typing import Any

from services.errors import BackendUnavailable, Overloaded, SparsewellError
from sparsewell.client.operations import Operation

FIRST_DELAY, LONGEST_DELAY = 0.25, 15.0


class Patience:
    """Says how long to wait before an operation is sent again, until `seconds` have passed since it was made."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._bound = FIRST_DELAY

    def delay(self, operation: Operation[Any], error: SparsewellError) -> float:
        """Seconds: what the server asked for, else jittered back-off. Raises `error` when it is no use, or unsafe.

        A refusal with 429 accepted nothing, so everything may follow it; after a lost connection only what does the
        same when it arrives twice.
        """
        if not isinstance(error, Overloaded) and not (isinstance(error, BackendUnavailable) and operation.again):
            raise error
        asked = error.extra.get("retry_after")
        delay = float(asked or random.uniform(self._bound / 2, self._bound))  # noqa: S311 (no secret)
        if time.monotonic() + delay > self._end:
            raise error
        self._bound = min(LONGEST_DELAY, self._bound * 2)
        return delay
