"""Durations of two or more sides that take turns, and what is said of them."""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

PERCENTILES = (10, 50, 90, 99)


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """p10 (a call that nothing disturbed), p50, p90, p99 and mean."""
    found = {f"p{p}": float(v) for p, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}
    return {name: round(value, digits) for name, value in (found | {"mean": float(np.mean(values))}).items()}


def ratios(above: Mapping[str, float], below: Mapping[str, float]) -> dict[str, float]:
    """Each percentile of one side over the other's."""
    return {name: round(above[name] / below[name], 3) for name in above if name.startswith("p")}


async def take_turns(
    sides: Mapping[str, Callable[[str], Awaitable[Any]]], queries: Sequence[str], rounds: int, seed: int = 1
) -> dict[str, list[float]]:
    """Milliseconds of each side by call: every query goes to every side, the sides in a new order each time.

    So whatever else the machine does meets all sides alike, and the i-th values belong together. The first round is
    thrown away.
    """
    order = random.Random(seed)
    names = list(sides)
    took: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for query in order.sample(queries, len(queries)):
            for name in order.sample(names, len(names)):
                begun = perf_counter()
                await sides[name](query)
                if turn:
                    took[name].append((perf_counter() - begun) * 1000)
    return took


async def processor_time(
    read: Callable[[], Awaitable[float]],
    sides: Mapping[str, Callable[[str], Awaitable[Any]]],
    queries: Sequence[str],
    rounds: int,
    seed: int = 1,
) -> dict[str, float]:
    """Milliseconds of a processor that a server takes for a call of each side.

    `read` gives the milliseconds that it has taken since it was started. Each round asks all queries of one side, then
    of the next, the sides in a new order. Other processes of the machine disturb this less than the clock; the
    server's own collecting of garbage is in it.
    """
    order = random.Random(seed)
    took = dict.fromkeys(sides, 0.0)
    for _ in range(rounds):
        for name in order.sample(list(sides), len(sides)):
            before = await read()
            for query in queries:
                await sides[name](query)
            took[name] += await read() - before
    return {name: round(value / (rounds * len(queries)), 3) for name, value in took.items()}
