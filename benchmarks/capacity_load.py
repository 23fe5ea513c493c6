"""An API asked at given rates: questions come when they come, whether the ones before are answered or not."""

import asyncio
import random
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import orjson
import psutil

from benchmarks.loopback import KeptConnection
from benchmarks.timing import spread
from services.settings import Settings

RATES = (10, 40, 80, 160)
_CONNECTIONS = 16


async def at_rates(
    settings: Settings, index: str, queries: Sequence[str], seconds: float, mode: str
) -> list[dict[str, float]]:
    """For each rate (a Poisson process) milliseconds from when a question was due to its answer, and the share of all
    cores of the machine that was busy, everything on it counted.
    """
    rows = []
    for rate in RATES:
        order = random.Random(rate)
        free: asyncio.Queue[KeptConnection] = asyncio.Queue()
        kept = [KeptConnection(f"http://{settings.api_host}:{settings.api_port}") for _ in range(_CONNECTIONS)]
        for connection in kept:
            free.put_nowait(await connection.__aenter__())
        took: list[float] = []

        async def ask(due: float, query: str, free: Any = free, took: list[float] = took) -> None:
            connection = await free.get()
            try:
                body = orjson.dumps({"query": query, "mode": mode, "did_you_mean": False})
                await connection.send("POST", f"/v1/indexes/{index}/search", body)
            finally:
                free.put_nowait(connection)
            took.append((perf_counter() - due) * 1000)

        psutil.cpu_percent()
        begun = due = perf_counter()
        asking = set()
        while due < begun + seconds:
            await asyncio.sleep(max(0, due - perf_counter()))
            asking.add(asyncio.create_task(ask(due, order.choice(queries))))
            due += order.expovariate(rate)
        busy = psutil.cpu_percent() / 100
        await asyncio.gather(*asking)
        for connection in kept:
            await connection.__aexit__(None, None, None)
        row = {"a_second": rate, "busy": round(busy, 3)} | spread(took)
        print(f"{rate:>4} a second: busy {busy:.2f}, p50 {row['p50']:.2f} ms, p99 {row['p99']:.2f} ms", flush=True)
        rows.append(row)
    return rows
