"""How much each caller asks: decided at once by a bucket of this process, settled with all others in Redis beside it.

A round trip to Redis on each request would cost as much as a search does here. So what was used is told to Redis five
times a second, and what is left comes back; between two such moments processes may let through too much together,
which the shared bucket takes as a debt. Without Redis each process goes by its own bucket. See docs/decisions/0202.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.access import shared_limits
from services.access.buckets import Bucket
from services.access.principal import Limits, Principal
from services.errors import Overloaded

log = logging.getLogger(__name__)

SETTLED_SECONDS: Final = 0.2
# After a failure nobody asks Redis for so long.
AWAY_SECONDS: Final = 2.0
_MOST: Final = 10_000
_DAY: Final = 86_400
_NO_RATE: Final = 1e9


@dataclass(slots=True)
class _Use:
    """What a principal uses: `used` since it was last settled, `today` as far as is known."""

    bucket: Bucket
    daily: int | None
    day: int
    used: int = 0
    today: int = 0
    settling: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
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


class Limiter:
    """Belongs to one event loop. `defaults`: for callers without limits of their own."""

    def __init__(self, redis_address: str, prefix: str, defaults: Limits) -> None:
        self._address: Final = redis_address
        self._prefix: Final = prefix
        self._defaults: Final = defaults
        self._uses: OrderedDict[str, _Use] = OrderedDict()
        self._redis: Redis | None = None
        self._task: asyncio.Task[None] | None = None
        self._away = False

    def admit(self, who: Principal, amount: int = 1) -> Standing | None:
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
                retry_after=_DAY - int(time.time()) % _DAY,
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
        return Standing(int(bucket.burst), int(left), reset, window)

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
                keys = shared_limits.names(self._prefix, name, use.day)
                pipe.eval(shared_limits.TAKE, 2, *keys, use.bucket.rate, use.bucket.burst, use.settling)
            try:
                answers = await pipe.execute()
            except (RedisError, OSError):
                for _, use in used:
                    use.used += use.settling
                raise
        now = time.monotonic()
        for (_, use), day, answer in zip(used, days, answers, strict=True):
            tokens, today = shared_limits.read(answer)
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

    def _use(self, who: Principal, rate: float | None, daily: int | None, now: float) -> _Use:
        day = int(time.time()) // _DAY
        use = self._uses.get(who.id)
        if use is None:
            each = rate or _NO_RATE
            burst = who.limits.burst or self._defaults.burst or max(1, math.ceil(2 * each))
            use = self._uses[who.id] = _Use(Bucket.full(each, burst, now), daily, day)
            if len(self._uses) > _MOST:
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
            await asyncio.sleep(AWAY_SECONDS if self._away else SETTLED_SECONDS)
