"""How much each caller asks: decided at once by a bucket of this process, settled with all others in Redis beside it.

A round trip to Redis on each request would cost as much as a search does here. So what was used is told to Redis five
times a second, and what is left comes back; between two such moments processes may let through too much together,
which the shared bucket takes as a debt. Without Redis each process goes by its own bucket. See docs/decisions/0202.

Token buckets: so much at once, refilled at a rate. Values and arithmetic; the clock (seconds) is the caller's.

What a principal has used, in Redis: one bucket and one count of the day for all processes. Scripts and names.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.access.principals import Principal, RateLimits
from services.errors import Overloaded


@dataclass(slots=True)
class TokenBucket:
    """`tokens` were there at the time `at`."""

    rate: float
    burst: float
    tokens: float
    at: float

    @classmethod
    def full(cls, rate: float, burst: float, now: float) -> "TokenBucket":
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


class FailureLimiter:
    """Failures by whom they come from: a bucket each, of the latest `most` of them."""

    def __init__(self, rate: float, burst: int, most: int) -> None:
        self._rate, self._burst, self._most = rate, burst, most
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def failed(self, source: str, now: float) -> float:
        """Counts a failure; 0, or seconds until another one of this source would be listened to."""
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = TokenBucket.full(self._rate, self._burst, now)
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


# Takes what was used since, whatever is there, and tells what is left: a process decided already. So a bucket may be in
# debt, by as much as it holds at most. Redis' own clock, so that hosts need not agree on theirs.
TAKE_SCRIPT: Final = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local rate, burst, used = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = math.min(burst, (tonumber(kept[1]) or burst) + (now - (tonumber(kept[2]) or now)) * rate)
tokens = math.max(tokens - used, -burst)
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], math.ceil(2 * burst / rate) + 60)
local day = redis.call('INCRBY', KEYS[2], used)
redis.call('EXPIRE', KEYS[2], 2 * 86400)
return {tostring(tokens), day}
"""


def rate_limit_keys(prefix: str, principal: str, day: int) -> tuple[str, str]:
    """The keys of a principal's bucket and of its day (days since 1970, UTC), in one slot of a Redis cluster."""
    return f"{prefix}:limits:{{{principal}}}", f"{prefix}:used:{{{principal}}}:{day}"


def read_rate_limit(answer: Sequence[Any]) -> tuple[float, int]:
    """Tokens that are left, below zero for a debt, and what the day has used."""
    return float(answer[0]), int(answer[1])


log = logging.getLogger(__name__)

SETTLE_INTERVAL_SECONDS: Final = 0.2
# After a failure nobody asks Redis for so long.
REDIS_RETRY_SECONDS: Final = 2.0
_MAX_PRINCIPALS: Final = 10_000
_DAY_SECONDS: Final = 86_400
_UNLIMITED_RATE: Final = 1e9


@dataclass(slots=True)
class _Usage:
    """What a principal uses: `used` since it was last settled, `today` as far as is known."""

    bucket: TokenBucket
    daily: int | None
    day: int
    used: int = 0
    today: int = 0
    settling: int = 0


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """What an answer says of limits: requests at once, what is left of them, seconds until all are there again."""

    limit: int
    remaining: int
    reset: int
    window: int

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As draft-ietf-httpapi-ratelimit-headers has it."""
        return [
            (b"ratelimit-policy", f'"key";q={self.limit};w={self.window}'.encode()),
            (b"ratelimit", f'"key";r={self.remaining};t={self.reset}'.encode()),
        ]


class RateLimiter:
    """Belongs to one event loop. `defaults`: for callers without limits of their own."""

    def __init__(self, redis_address: str, prefix: str, defaults: RateLimits) -> None:
        self._address: Final = redis_address
        self._prefix: Final = prefix
        self._defaults: Final = defaults
        self._uses: OrderedDict[str, _Usage] = OrderedDict()
        self._redis: Redis | None = None
        self._task: asyncio.Task[None] | None = None
        self._away = False

    def admit(self, who: Principal, amount: int = 1) -> RateLimitStatus | None:
        """Lets so many requests through; None where nothing is limited.

        Raises Overloaded (`rate_limited`, `daily_limit_reached`).
        """
        rate, daily = who.limits.rate or self._defaults.rate, who.limits.daily or self._defaults.daily
        if rate is None and daily is None:
            return None
        now = time.monotonic()
        use = self._use(who, rate, daily, now)
        if daily is not None and use.today + amount > daily:
            raise Overloaded(
                "daily_limit_reached",
                f"This key has used the {daily:,} requests of its day, which ends at midnight UTC.",
                limit=daily,
                retry_after=_DAY_SECONDS - int(time.time()) % _DAY_SECONDS,
            )
        wait = use.bucket.take(amount, now)
        if wait:
            raise Overloaded(
                "rate_limited",
                f"This key may ask {use.bucket.rate:g} times a second, and {use.bucket.burst:g} times at once.",
                limit=int(use.bucket.burst),
                retry_after=max(1, math.ceil(wait)),
            )
        use.used += amount
        use.today += amount
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._settle_while_used())
        if rate is None:
            return None
        bucket = use.bucket
        left = max(0.0, bucket.tokens)
        reset, window = math.ceil((bucket.burst - left) / bucket.rate), math.ceil(bucket.burst / bucket.rate)
        return RateLimitStatus(int(bucket.burst), int(left), reset, window)

    async def settle(self) -> None:
        """Tells Redis what was used and learns what others have. Raises RedisError, OSError."""
        used = [(name, use) for name, use in self._uses.items() if use.used]
        if not used:
            return
        if self._redis is None:
            self._redis = Redis.from_url(self._address, socket_connect_timeout=1.0, socket_timeout=1.0)
        days: list[int] = []
        async with self._redis.pipeline(transaction=False) as pipe:
            for name, use in used:
                use.settling, use.used = use.used, 0
                days.append(use.day)
                keys = rate_limit_keys(self._prefix, name, use.day)
                pipe.eval(TAKE_SCRIPT, 2, *keys, use.bucket.rate, use.bucket.burst, use.settling)
            try:
                answers = await pipe.execute()
            except (RedisError, OSError):
                for _, use in used:
                    use.used += use.settling
                raise
        now = time.monotonic()
        for (_, use), day, answer in zip(used, days, answers, strict=True):
            tokens, today = read_rate_limit(answer)
            use.bucket.tokens, use.bucket.at = tokens - use.used, now
            if day == use.day:  # (else midnight came while Redis was asked, and this is of yesterday)
                # a Redis that lost its data has seen less of the day than we
                use.today = max(use.today, today + use.used)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._redis is not None:
            await self._redis.aclose()

    def _use(self, who: Principal, rate: float | None, daily: int | None, now: float) -> _Usage:
        day = int(time.time()) // _DAY_SECONDS
        use = self._uses.get(who.id)
        if use is None:
            each = rate or _UNLIMITED_RATE
            burst = who.limits.burst or self._defaults.burst or max(1, math.ceil(2 * each))
            use = self._uses[who.id] = _Usage(TokenBucket.full(each, burst, now), daily, day)
            if len(self._uses) > _MAX_PRINCIPALS:
                self._uses.popitem(last=False)
        elif use.day != day:
            use.day, use.today, use.used = day, 0, 0
        self._uses.move_to_end(who.id)
        return use

    async def _settle_while_used(self) -> None:
        while any(use.used for use in self._uses.values()):
            try:
                await self.settle()
                if self._away:
                    log.info("limits are shared with other processes again")
                self._away = False
            except (RedisError, OSError) as error:
                if not self._away:
                    log.warning("limits are of this process alone, Redis is away: %s", type(error).__name__)
                self._away = True
            await asyncio.sleep(REDIS_RETRY_SECONDS if self._away else SETTLE_INTERVAL_SECONDS)
