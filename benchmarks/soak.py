"""Soak test: searches and writes at 70 % of the capacity while every process is restarted in turn.

    python -m benchmarks soak --minutes 30 --json benchmarks/results/soak.json

Two data nodes and a voter, Redis, two APIs, workers and a sweeper run as real processes on loopback; clients use the
other API when one does not answer. A closed loop measures the capacity. Then queries and writes arrive as a Poisson
process at a share of it, and in the middle third each process is restarted. The figures are latencies and memory by
minute, the slope of memory, the failures, and whether every acknowledged document is there, encoded, in its last
version.
"""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from statistics import linear_regression
from typing import Any

import orjson
import uvloop

from benchmarks.measuring import make_parser, run_benchmark, summarise_durations
from benchmarks.service import LoopbackConnection, read_opensearch_version
from benchmarks.soak_stack import SOAK_INDEX, SoakClients, SoakLog, SoakStack, open_soak_stack
from benchmarks.stdlib import read_everyday_questions, read_stdlib_documents
from services.opensearch.client import Call, SyncSearchClient

_SAMPLE_SECONDS = 5.0
_SETTLE_SECONDS = 600.0
_PENDING_QUERY = orjson.dumps({"query": {"term": {"state": "pending"}}})
# Seconds since the start; process and MiB of each part.
ProcessSample = tuple[float, Mapping[str, tuple[int, float]]]


def soak(argv: list[str] | None = None) -> None:
    """Run searches and writes at 70 % of the capacity while every process is restarted in turn."""
    parser = make_parser("soak", soak.__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--load", type=float, default=0.7, help="share of the capacity")
    parser.add_argument("--share", type=int, default=10, help="searches for each document")
    parser.add_argument("--documents", type=int, default=2000, help="number of ids, each written many times")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--warm", type=float, default=30, help="seconds of the warm-up, and of the capacity run")
    run_benchmark("soak", parser, measure_soak, argv)


def measure_soak(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the stack and measure it."""
    with open_soak_stack(arguments.workers) as stack:
        figures = uvloop.run(_create_index_and_run(stack, arguments))
        figures["opensearch"] = read_opensearch_version(stack.settings)
    after = figures["by_third"]["after"]
    print(
        f"{figures['searches']:,} searches, {figures['failures']} failed; p99 {after['p99']:.1f} ms after, "
        f"{figures['p99_after_over_before']:.2f} of before; documents {figures['documents']}",
        flush=True,
    )
    return figures


async def _create_index_and_run(stack: SoakStack, arguments: argparse.Namespace) -> dict[str, Any]:
    async with LoopbackConnection(f"http://127.0.0.1:{stack.ports[0]}") as connection:
        await connection.send("PUT", f"/v1/indexes/{SOAK_INDEX}", b"{}")
    return await run_soak(stack, arguments)


async def run_soak(stack: SoakStack, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all figures of one run."""
    texts = [document.text[:2000] for document in read_stdlib_documents(3000) if document.text]
    addresses = [f"http://127.0.0.1:{port}" for port in stack.ports]
    clients = SoakClients(addresses, read_everyday_questions(), texts, arguments.clients)
    await clients.closed_loop(arguments.warm, arguments.share, arguments.documents)  # warms compilers and caches
    capacity = await clients.closed_loop(arguments.warm, arguments.share, arguments.documents)
    print(f"capacity: {capacity:.1f} units a second (a document and {arguments.share} searches each)", flush=True)
    await _wait_until_settled(stack)
    clients.log.searches.clear()
    clients.log.failed.clear()
    seconds, rate = arguments.minutes * 60, capacity * arguments.load
    samples: list[ProcessSample] = []
    restarts: list[dict[str, Any]] = []
    watching = asyncio.create_task(_sample_processes(stack, samples))
    rolling = asyncio.create_task(_restart_parts(stack, seconds, restarts))
    await clients.at_rate(rate, seconds, arguments.share, arguments.documents)
    await rolling
    watching.cancel()
    settled = await _wait_until_settled(stack)
    minutes = percentiles_by_minute(clients.log.searches, seconds)
    thirds = [_third_percentiles(clients.log.searches, seconds, number) for number in range(3)]
    return {
        "capacity_units_a_second": round(capacity, 2),
        "searches": len(clients.log.searches),
        "searches_repeated": clients.log.repeated_searches,
        "writes_repeated": clients.log.repeated_writes,
        "failed": clients.log.failed[:20],
        "failures": len(clients.log.failed),
        "by_third": {"before": thirds[0], "while restarting": thirds[1], "after": thirds[2]},
        "p99_after_over_before": round(thirds[2]["p99"] / thirds[0]["p99"], 3),
        "by_minute": minutes,
        "memory_mib": memory_slopes(samples),
        "restarts": restarts,
        "settled_seconds": round(settled, 1),
        "documents": count_lost(stack, clients.log),
    }


async def _sample_processes(stack: SoakStack, samples: list[ProcessSample]) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    while True:
        samples.append((loop.time() - started, stack.memory()))
        await asyncio.sleep(_SAMPLE_SECONDS)


async def _restart_parts(stack: SoakStack, seconds: float, done: list[dict[str, Any]]) -> None:
    """Restart every process once, spread evenly over the middle third."""
    loop = asyncio.get_running_loop()
    started, restarts = loop.time(), stack.restarts()
    for number, (name, restart) in enumerate(restarts.items()):
        await asyncio.sleep(max(0.0, started + seconds * (1 + number / len(restarts)) / 3 - loop.time()))
        at = loop.time()
        await asyncio.to_thread(restart)
        done.append({"part": name, "at": round(at - started, 1), "seconds": round(loop.time() - at, 1)})
        print(f"{at - started:6.0f} s: {name} restarted in {loop.time() - at:.1f} s", flush=True)


def percentiles_by_minute(searches: Sequence[tuple[float, float]], seconds: float) -> list[dict[str, float]]:
    """Return the percentiles of each minute."""
    rows = []
    for minute in range(max(1, int(seconds // 60))):
        in_minute = [durations for at, durations in searches if minute * 60 <= at < (minute + 1) * 60]
        if in_minute:
            rows.append({"minute": minute, "searches": len(in_minute)} | summarise_durations(in_minute, 2))
    return rows


def _third_percentiles(searches: Sequence[tuple[float, float]], seconds: float, number: int) -> dict[str, float]:
    return summarise_durations(
        [durations for at, durations in searches if number * seconds / 3 <= at < (number + 1) * seconds / 3], 2
    )


def memory_slopes(samples: Sequence[ProcessSample]) -> dict[str, dict[str, Any]]:
    """Return MiB by process: first, last, largest and by minute, and the slope per hour.

    The slope is that of the longest life, because processes are restarted, after its first third, when caches are
    filled.
    """
    rows = {}
    for name in sorted({name for _, sizes in samples for name in sizes}):
        readings = [(at, *sizes[name]) for at, sizes in samples if name in sizes]
        lives: dict[int, list[tuple[float, float]]] = {}
        for at, process, size in readings:
            lives.setdefault(process, []).append((at, size))
        longest = max(lives.values(), key=len)
        later = longest[len(longest) // 3 :]
        slope = linear_regression(*zip(*later, strict=True)).slope if len(later) > 2 else 0
        sizes = [size for _, _, size in readings]
        rows[name] = {
            "first": round(sizes[0], 1), "last": round(sizes[-1], 1), "most": round(max(sizes), 1),
            "slope_an_hour": round(slope * 3600, 2), "slope_over_seconds": round(later[-1][0] - later[0][0]),
            "by_minute": [round(size, 1) for size in sizes[:: round(60 / _SAMPLE_SECONDS)]],
        }  # fmt: skip
    return rows


async def _wait_until_settled(stack: SoakStack) -> float:
    """Return the seconds until no document is pending. Raises RuntimeError after ten minutes."""
    loop = asyncio.get_running_loop()
    started, search = loop.time(), SyncSearchClient(stack.settings)
    try:
        while loop.time() < started + _SETTLE_SECONDS:
            path = f"/{stack.settings.index_prefix}-{SOAK_INDEX}"
            search.send(Call("POST", f"{path}/_refresh"))
            count = search.send(Call("POST", f"{path}/_count", _PENDING_QUERY))
            if not count["count"]:
                return loop.time() - started
            await asyncio.sleep(1)
    finally:
        search.close()
    raise RuntimeError("documents are still pending")


def count_lost(stack: SoakStack, log: SoakLog) -> dict[str, int]:
    """Return the acknowledged documents that are missing, stale or not encoded after settling."""
    search = SyncSearchClient(stack.settings)
    try:
        search.send(Call("POST", f"/{stack.settings.index_prefix}-{SOAK_INDEX}/_refresh"))
        missing = stale = pending = 0
        names = list(log.acknowledged)
        for start in range(0, len(names), 500):
            ids = names[start : start + 500]
            call = Call("POST", f"/{stack.settings.index_prefix}-{SOAK_INDEX}/_mget", orjson.dumps({"ids": ids}))
            for document in search.send(call)["docs"]:
                source = document.get("_source")
                missing += source is None
                if source is not None:
                    stale += source["version"] < log.acknowledged[document["_id"]]
                    pending += source["state"] != "encoded"
        return {"acknowledged": len(names), "missing": missing, "stale": stale, "not_encoded": pending}
    finally:
        search.close()
