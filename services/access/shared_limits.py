"""What a principal has used, in Redis: one bucket and one count of the day for all processes. Scripts and names."""

from collections.abc import Sequence
from typing import Any, Final

# Takes what was used since, whatever is there, and tells what is left: a process decided already. So a bucket may be in
# debt, by as much as it holds at most. Redis' own clock, so that hosts need not agree on theirs.
TAKE: Final = """
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


def names(prefix: str, principal: str, day: int) -> tuple[str, str]:
    """The keys of a principal's bucket and of its day (days since 1970, UTC), in one slot of a Redis cluster."""
    return f"{prefix}:limits:{{{principal}}}", f"{prefix}:used:{{{principal}}}:{day}"


def read(answer: Sequence[Any]) -> tuple[float, int]:
    """Tokens that are left, below zero for a debt, and what the day has used."""
    return float(answer[0]), int(answer[1])
