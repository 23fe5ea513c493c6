"""What does a key add to a request? Microseconds of the gate, and of the filter of a key with one.

    python -m benchmarks.key_check --json benchmarks/results/key_check.json

The best of five rounds: what the code costs, without what else the machine did.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from benchmarks.record import command_line, run
from query_api.access.gate import Gate
from query_api.access.limiting import Limiter
from query_api.access.ring import KeyRing
from services.access.key_text import digest, new_key
from services.access.keys import Key, Secret
from services.access.principal import Limits
from services.filters.tree import OneOf
from services.index_spec import EncoderIdentity, Generation, IndexSpec, Names
from services.manifest import WindowSettings
from services.opensearch.client import AsyncSearch, Call
from services.opensearch.confinement import Confinement
from services.opensearch.key_store import StoredKey
from services.opensearch.queries import Plan, body, lexical_query, msearch_call
from services.settings import Settings

MOST_KEYS = 10_000


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def _receive() -> Message:
    return {"type": "http.disconnect"}


async def _send(message: Message) -> None:
    return None


def _scope(key: str | None) -> Scope:
    headers = [(b"host", b"x"), (b"content-type", b"application/json"), (b"accept", b"*/*")]
    if key is not None:
        headers.append((b"authorization", f"Bearer {key}".encode()))
    return {"type": "http", "path": "/v1/indexes/a/search", "query_string": b"", "headers": headers, "client": ("c", 1)}


def _key(number: int, text: str, limit: float | None) -> StoredKey:
    key_id = text.split("_")[1]
    key = Key(key_id, "k", ("search",), ("a", "b-*"), None, 0, (Secret(digest(text), 0),), rate=limit)
    return StoredKey(key, number, 1)


async def _microseconds(one: Callable[[], Awaitable[None]], times: int) -> float:
    best = float("inf")
    for _ in range(5):
        began = perf_counter()
        for _ in range(times):
            await one()
        best = min(best, (perf_counter() - began) / times)
    return round(best * 1e6, 2)


async def _gates(times: int) -> dict[str, float]:
    settings = Settings()
    search = AsyncSearch(settings)
    limiter = Limiter("redis://127.0.0.1:1/0", "bench", Limits())
    ring = KeyRing(search, Names("bench"))
    plain, limited = new_key("a" * 16), new_key("b" * 16)
    ring.take(_key(n, new_key(f"{n:016d}".translate(_LETTERS)), None) for n in range(MOST_KEYS))
    ring.take([_key(0, plain, None), _key(1, limited, 1e9)])
    ring._read_at, ring._tried_at = perf_counter(), float("inf")  # (nothing is read meanwhile)

    def asked(gate: Callable[..., Awaitable[None]], key: str | None) -> Callable[[], Awaitable[None]]:
        return lambda: gate(_scope(key), _receive, _send)

    opened, closed = (Gate(_nothing, mode, ring, (new_key("c" * 16),), limiter) for mode in ("open", "keys"))
    found = {
        "no gate": await _microseconds(asked(_nothing, plain), times),
        "open": await _microseconds(asked(opened, plain), times),
        "a key of 10,000": await _microseconds(asked(closed, plain), times),
        "a key with a limit": await _microseconds(asked(closed, limited), times),
    }
    await limiter.close()
    await ring.close()
    await search.close()
    return found


_LETTERS = str.maketrans("0123456789", "abcdefghij")


async def _confined(times: int) -> float:
    """A hybrid search of forty pieces, taken apart and put together."""
    generation = Generation(
        index="a", number=1, physical="p-a.g000001", spec=IndexSpec.model_validate({"fields": {"tenant": "keyword"}}),
        encoder=EncoderIdentity(name="e", fingerprint="f"), window=WindowSettings(pieces=100, overlap=10),
        created_at="now",
    )  # fmt: skip
    features = [{"rank_feature": {"field": f"sparse.{n}", "boost": 1.5, "linear": {}}} for n in range(40)]
    lists = [body({"bool": {"should": features}}, 100, False, 5), body(lexical_query("a few words"), 100, False, 5)]
    call: Call = msearch_call([Plan(generation.physical, one) for one in lists], 5)

    async def one() -> None:
        within = Confinement()
        within.admit(generation, OneOf("tenant", ("a",)))
        within.answered(call, within.confined(call))

    return await _microseconds(one, times)


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """Microseconds a request."""
    gates = asyncio.run(_gates(given.times))
    rows = gates | {"the filter of a key, hybrid": asyncio.run(_confined(given.times))}
    for said, value in rows.items():
        print(f"{said:>28}: {value} µs")
    return {"microseconds": rows}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("key_check", __doc__)
    parser.add_argument("--times", type=int, default=20_000, help="requests of a round")
    run("key_check", parser, measured, arguments)


if __name__ == "__main__":
    main()
