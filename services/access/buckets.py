"""Token buckets: so much at once, refilled at a rate. Values and arithmetic; the clock (seconds) is the caller's."""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """`tokens` were there at the time `at`."""

    rate: float
    burst: float
    tokens: float
    at: float

    @classmethod
    def full(cls, rate: float, burst: float, now: float) -> "Bucket":
        return cls(rate, burst, burst, now)

    def take(self, amount: float, now: float) -> float:
        """Takes so many tokens: 0. Where there are too few, takes none: seconds until there are enough.

        More than the bucket holds may be taken while it is full: it is in debt then.
        """
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens >= min(amount, self.burst):
            self.tokens -= amount
            return 0.0
        return (min(amount, self.burst) - self.tokens) / self.rate


class Attempts:
    """Failures by whom they come from: a bucket each, of the latest `most` of them."""

    def __init__(self, rate: float, burst: int, most: int) -> None:
        self._rate, self._burst, self._most = rate, burst, most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def failed(self, source: str, now: float) -> float:
        """Counts a failure; 0, or seconds until another one of this source would be listened to."""
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = Bucket.full(self._rate, self._burst, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        return bucket.take(1, now)

    def exhausted(self, source: str, now: float) -> bool:
        """Whether this source has failed so often that it is not listened to now."""
        bucket = self._buckets.get(source)
        return bucket is not None and bucket.tokens + (now - bucket.at) * bucket.rate < 1

    def __len__(self) -> int:
        return len(self._buckets)
