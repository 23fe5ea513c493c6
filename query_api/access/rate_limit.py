"""Rate limits: token buckets per principal, shared by all API processes through Redis.

`RateLimiter` decides with a bucket in the process, because a round trip to Redis costs as much as a search. Five
times a second it reports the used tokens to Redis and reads the shared state. Between two reports the processes
together may admit too much; the shared bucket records that as debt. Without Redis each process uses its own bucket
(docs/decisions/0202). Requests are paid for before they are answered. Documents and bytes are paid for as they come,
because their number is unknown before, so a bucket of them may be in debt (docs/decisions/0261). `FailureLimiter`
limits failed authentications by address, in one process.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.access.principals import EVERYBODY, Principal, RateLimits
from services.errors import Overloaded

log = logging.getLogger(__name__)

REPORT_INTERVAL_SECONDS: Final = 0.2
# The limiter waits this long after a failure of Redis.
REDIS_RETRY_SECONDS: Final = 2.0
_MAX_BUCKETS: Final = 20_000
_DAY_SECONDS: Final = 86_400
_UNLIMITED_RATE: Final = 1e9
# A key may save up the documents and bytes of this time.
WRITE_BURST_SECONDS: Final = 10
# A bucket's debt is at most that of this time: a body of 1 GiB at 300 KB a second.
MAX_DEBT_SECONDS: Final = 3600

LimitUnit = Literal["requests", "documents", "bytes"]

# Records used tokens and returns the rest. The process has already admitted the requests, so the bucket may go into
# debt, down to `floor`. It uses the clock of Redis, because the clocks of hosts differ.
TAKE_SCRIPT: Final = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local rate, burst, used, floor = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = math.min(burst, (tonumber(kept[1]) or burst) + math.max(0, now - (tonumber(kept[2]) or now)) * rate)
tokens = math.max(tokens - used, floor)
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], math.min(math.ceil((burst - tokens) / rate) + 60, 30 * 86400))
local day = redis.call('INCRBY', KEYS[2], used)
redis.call('EXPIRE', KEYS[2], 2 * 86400)
return {tostring(tokens), day}
"""


@dataclass(slots=True)
class TokenBucket:
    """A token bucket: up to `burst` tokens, refilled at `rate` a second. It held `tokens` at the time `at`."""

    rate: float
    burst: float
    tokens: float
    at: float

    @classmethod
    def full(cls, rate: float, burst: float, now: float) -> "TokenBucket":
        """Create a full bucket. `now` is in seconds of the caller's clock, here and in `take`."""
        return cls(rate, burst, burst, now)

    def available(self, now: float) -> float:
        """Return the tokens at this time; below zero for debt."""
        return min(self.burst, self.tokens + (now - self.at) * self.rate)

    def take(self, amount: float, now: float) -> float:
        """Take tokens and return 0. When there are too few, take none and return the seconds until there are enough.

        A full bucket lets through more than `burst` at once and is in debt afterwards.
        """
        self.tokens, self.at = self.available(now), now
        if self.tokens >= min(amount, self.burst):
            self.tokens -= amount
            return 0.0
        return (min(amount, self.burst) - self.tokens) / self.rate


class FailureLimiter:
    """A token bucket of failures per source, for the latest `max_sources` sources."""

    def __init__(self, rate: float, burst: int, max_sources: int) -> None:
        self._rate, self._burst, self._max_sources = rate, burst, max_sources
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def record_failure(self, source: str, now: float) -> float:
        """Count a failure. Return 0, or the seconds until the source has a token again."""
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = TokenBucket.full(self._rate, self._burst, now)
            if len(self._buckets) > self._max_sources:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        return bucket.take(1, now)

    def is_exhausted(self, source: str, now: float) -> bool:
        """Return whether the source has no token left."""
        bucket = self._buckets.get(source)
        return bucket is not None and bucket.available(now) < 1

    def __len__(self) -> int:
        return len(self._buckets)


def rate_limit_keys(prefix: str, principal: str, day: int, unit: LimitUnit = "requests") -> tuple[str, str]:
    """Return the Redis keys of a principal's bucket and of its count for a day (days since 1970, UTC).

    Both are in one slot of a Redis cluster.
    """
    kind = "" if unit == "requests" else f"{unit}:"
    return f"{prefix}:limits:{kind}{{{principal}}}", f"{prefix}:used:{kind}{{{principal}}}:{day}"


def read_rate_limit(answer: Sequence[Any]) -> tuple[float, int]:
    """Read the answer of TAKE_SCRIPT: the tokens left (below zero for debt) and the amount of the day."""
    return float(answer[0]), int(answer[1])


@dataclass(slots=True)
class _Usage:
    """The usage of one unit by a principal: `used` since the last report, `today` as far as this process knows.

    `floor` (below zero) is the largest debt of the bucket.
    """

    bucket: TokenBucket
    floor: float
    daily: int | None
    day: int
    used: int = 0
    today: int = 0
    reporting: int = 0


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """The limit that an answer reports: the burst, the rest of it, the seconds until it is full again, the window."""

    limit: int
    remaining: int
    reset: int
    window: int

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of draft-ietf-httpapi-ratelimit-headers."""
        return [
            (b"ratelimit-policy", f'"key";q={self.limit};w={self.window}'.encode()),
            (b"ratelimit", f'"key";r={self.remaining};t={self.reset}'.encode()),
        ]


class RateLimiter:
    """The rate limits of all principals in one process. It belongs to one event loop.

    `defaults` apply to principals without limits.
    """

    def __init__(self, redis_address: str, prefix: str, defaults: RateLimits) -> None:
        self._address: Final = redis_address
        self._prefix: Final = prefix
        self._defaults: Final = defaults
        self._usage: OrderedDict[tuple[str, LimitUnit], _Usage] = OrderedDict()
        self._redis: Redis | None = None
        self._task: asyncio.Task[None] | None = None
        self._away = False

    def admit(self, principal: Principal, amount: int = 1) -> RateLimitStatus | None:
        """Admit requests of a principal and return its limit, or None when it has no rate limit.

        Raises Overloaded (`rate_limited`, `daily_limit_reached`).
        """
        rate, daily = principal.limits.rate or self._defaults.rate, principal.limits.daily or self._defaults.daily
        if rate is None and daily is None:
            return None
        now = time.monotonic()
        refill = rate or _UNLIMITED_RATE
        burst = principal.limits.burst or self._defaults.burst or max(1, math.ceil(2 * refill))
        use = self._usage_of(principal, "requests", refill, burst, now, floor=-burst, daily=daily)
        if daily is not None and use.today + amount > daily:
            raise Overloaded(
                "daily_limit_reached",
                f"This key has used its {daily:,} requests of today. The day ends at midnight UTC.",
                limit=daily,
                retry_after=_DAY_SECONDS - int(time.time()) % _DAY_SECONDS,
            )
        wait = use.bucket.take(amount, now)
        if wait:
            raise Overloaded(
                "rate_limited",
                f"This key may send {use.bucket.rate:g} requests a second, and {use.bucket.burst:g} at once.",
                limit=int(use.bucket.burst),
                retry_after=max(1, math.ceil(wait)),
            )
        self._record(use, amount)
        if rate is None:
            return None
        bucket = use.bucket
        left = max(0.0, bucket.tokens)
        reset, window = math.ceil((bucket.burst - left) / bucket.rate), math.ceil(bucket.burst / bucket.rate)
        return RateLimitStatus(int(bucket.burst), int(left), reset, window)

    def admit_writes(self, principal: Principal) -> None:
        """Admit documents of a principal, unless its earlier ones are not yet paid for.

        Raises Overloaded (`write_rate_limited`).
        """
        now = time.monotonic()
        for unit, use in self._write_usage(principal, now):
            rate, tokens = use.bucket.rate, use.bucket.available(now)
            if tokens <= 0:
                raise Overloaded(
                    "write_rate_limited",
                    f"This key may write {rate:,g} {unit} a second, and has written more.",
                    limit=rate,
                    unit=unit,
                    # Wait for the tokens of a second as well, or the next document would be refused again.
                    retry_after=math.ceil(1 - tokens / rate),
                )

    def charge_writes(self, principal: Principal, documents: int, size: int) -> None:
        """Take the documents of a principal and their bytes from its buckets, which may be in debt afterwards."""
        now = time.monotonic()
        for unit, use in self._write_usage(principal, now):
            amount = documents if unit == "documents" else size
            use.bucket.tokens, use.bucket.at = max(use.floor, use.bucket.available(now) - amount), now
            self._record(use, amount)

    async def report_usage(self) -> None:
        """Report the used tokens to Redis and read the shared state. Raises RedisError, OSError."""
        used = [(name, use) for name, use in self._usage.items() if use.used]
        if not used:
            return
        if self._redis is None:
            self._redis = Redis.from_url(self._address, socket_connect_timeout=1.0, socket_timeout=1.0)
        days: list[int] = []
        async with self._redis.pipeline(transaction=False) as pipe:
            for (name, unit), use in used:
                use.reporting, use.used = use.used, 0
                days.append(use.day)
                keys = rate_limit_keys(self._prefix, name, use.day, unit)
                pipe.eval(TAKE_SCRIPT, 2, *keys, use.bucket.rate, use.bucket.burst, use.reporting, use.floor)
            try:
                answers = await pipe.execute()
            except (RedisError, OSError):
                for _, use in used:
                    use.used += use.reporting
                raise
        now = time.monotonic()
        for (_, use), day, answer in zip(used, days, answers, strict=True):
            tokens, today = read_rate_limit(answer)
            use.bucket.tokens, use.bucket.at = tokens - use.used, now
            if day == use.day:  # After midnight the answer is about yesterday.
                # A Redis that lost its data has counted less than this process.
                use.today = max(use.today, today + use.used)

    async def close(self) -> None:
        """Stop the reports and close the connection."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._redis is not None:
            await self._redis.aclose()

    def _write_usage(self, principal: Principal, now: float) -> Iterator[tuple[LimitUnit, _Usage]]:
        """Yield the unit and the usage of each limit on a principal's writes."""
        if principal is EVERYBODY:  # A service without keys has no limits of callers.
            return
        own, defaults = principal.limits, self._defaults
        rates: dict[LimitUnit, float | None] = {
            "documents": own.document_rate or defaults.document_rate,
            "bytes": own.byte_rate or defaults.byte_rate,
        }
        for unit, rate in rates.items():
            if rate is not None:
                burst, floor = WRITE_BURST_SECONDS * rate, -MAX_DEBT_SECONDS * rate
                yield unit, self._usage_of(principal, unit, rate, burst, now, floor=floor)

    def _usage_of(
        self,
        principal: Principal,
        unit: LimitUnit,
        rate: float,
        burst: float,
        now: float,
        *,
        floor: float,
        daily: int | None = None,
    ) -> _Usage:
        """Return the usage of a unit. A principal that used nothing has a full bucket of this rate and burst."""
        day = int(time.time()) // _DAY_SECONDS
        use = self._usage.get((principal.id, unit))
        if use is None:
            use = self._usage[principal.id, unit] = _Usage(TokenBucket.full(rate, burst, now), floor, daily, day)
            if len(self._usage) > _MAX_BUCKETS:
                self._usage.popitem(last=False)
        elif use.day != day:
            use.day, use.today, use.used = day, 0, 0
        self._usage.move_to_end((principal.id, unit))
        return use

    def _record(self, use: _Usage, amount: int) -> None:
        """Count used tokens, and report them to Redis soon."""
        use.used += amount
        use.today += amount
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._report_while_used())

    async def _report_while_used(self) -> None:
        while any(use.used for use in self._usage.values()):
            try:
                await self.report_usage()
                if self._away:
                    log.info("the rate limits are shared with other processes again")
                self._away = False
            except (RedisError, OSError) as error:
                if not self._away:
                    log.warning("Redis is away, each process applies its own rate limits: %s", type(error).__name__)
                self._away = True
            await asyncio.sleep(REDIS_RETRY_SECONDS if self._away else REPORT_INTERVAL_SECONDS)
