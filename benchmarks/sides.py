"""Searches that take turns through the real API: the same queries, with other members or to another index."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from benchmarks.loopback import KeptConnection
from benchmarks.timing import ratios, spread, take_turns
from services.settings import Settings

# An index, and the members of a request beside its query.
Side = tuple[str, Mapping[str, Any]]


async def compared(
    settings: Settings, sides: Mapping[str, Side], queries: Sequence[str], rounds: int
) -> dict[str, dict[str, Any]]:
    """Milliseconds of each side, ratios of their percentiles to those of the first, and the hits of a query (mean).

    One client with one kept connection; answers are parsed.
    """
    plain = next(iter(sides))
    found: dict[str, list[int]] = {name: [] for name in sides}
    async with KeptConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:

        def asker(name: str) -> Any:
            index, members = sides[name]

            async def ask(query: str) -> None:
                body = orjson.dumps({"query": query, **members})
                answer = await connection.send("POST", f"/v1/indexes/{index}/search", body)
                found[name].append(len(answer["hits"]))

            return ask

        took = await take_turns({name: asker(name) for name in sides}, queries, rounds)
    ms = {name: spread(values) for name, values in took.items()}
    return {
        name: {
            "ms": ms[name],
            f"over {plain}": ratios(ms[name], ms[plain]),
            "hits_mean": round(sum(found[name]) / len(found[name]), 2),
        }
        for name in sides
    }
