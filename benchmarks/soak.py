"""Does it stay as it is? Searches and documents at 70 % of what this machine can do, while everything is restarted.

    python -m benchmarks.soak --minutes 30 --json benchmarks/results/soak.json

Two data nodes and a voter, Redis, two APIs behind a client that asks the other one where one does not answer, workers,
a sweeper: real processes on loopback. First everybody asks as fast as answers come (that is the capacity), then at a
share of it, as a Poisson process, for the minutes that are given. In the middle third each process is restarted in
turn. Told are: answer times and memory by minute, the slope of memory after the first fifth, what failed, and whether
every document that was acknowledged is there, encoded, in its last version.
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
# Seconds since the beginning; of each part its process and MiB.
ProcessSample = tuple[float, Mapping[str, tuple[int, float]]]
_PENDING_QUERY = orjson.dumps({"query": {"term": {"state": "pending"}}})


async def _sample_processes(stack: SoakStack, samples: list[ProcessSample]) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        samples.append((loop.time() - began, stack.memory()))
        await asyncio.sleep(_SAMPLE_SECONDS)


async def _restart_parts(stack: SoakStack, seconds: float, done: list[dict[str, Any]]) -> None:
    """Every part once, evenly over the middle third."""
    loop = asyncio.get_running_loop()
    began, restarts = loop.time(), stack.restarts()
    for number, (name, restart) in enumerate(restarts.items()):
        await asyncio.sleep(max(0.0, began + seconds * (1 + number / len(restarts)) / 3 - loop.time()))
        at = loop.time()
        await asyncio.to_thread(restart)
        done.append({"part": name, "at": round(at - began, 1), "seconds": round(loop.time() - at, 1)})
        print(f"{at - began:6.0f} s: {name} restarted in {loop.time() - at:.1f} s", flush=True)


def percentiles_by_minute(searches: Sequence[tuple[float, float]], seconds: float) -> list[dict[str, float]]:
    """Percentiles of each minute."""
    rows = []
    for minute in range(max(1, int(seconds // 60))):
        some = [took for at, took in searches if minute * 60 <= at < (minute + 1) * 60]
        if some:
            rows.append({"minute": minute, "searches": len(some)} | summarise_durations(some, 2))
    return rows


def memory_slopes(samples: Sequence[ProcessSample]) -> dict[str, dict[str, Any]]:
    """Of each part MiB first, last, at most and by minute; and of the longest life (parts are restarted) its slope an
    hour after the first third, when caches are filled.
    """
    rows = {}
    for name in sorted({name for _, sizes in samples for name in sizes}):
        seen = [(at, *sizes[name]) for at, sizes in samples if name in sizes]
        lives: dict[int, list[tuple[float, float]]] = {}
        for at, process, size in seen:
            lives.setdefault(process, []).append((at, size))
        longest = max(lives.values(), key=len)
        later = longest[len(longest) // 3 :]
        slope = linear_regression(*zip(*later, strict=True)).slope if len(later) > 2 else 0
        sizes = [size for _, _, size in seen]
        rows[name] = {
            "first": round(sizes[0], 1), "last": round(sizes[-1], 1), "most": round(max(sizes), 1),
            "slope_an_hour": round(slope * 3600, 2), "slope_over_seconds": round(later[-1][0] - later[0][0]),
            "by_minute": [round(size, 1) for size in sizes[:: round(60 / _SAMPLE_SECONDS)]],
        }  # fmt: skip
    return rows


def count_lost(stack: SoakStack, kept: SoakLog) -> dict[str, int]:
    """Acknowledged documents that are not there, are older than acknowledged, or are not encoded, after settling."""
    search = SyncSearchClient(stack.settings)
    try:
        search.send(Call("POST", f"/{stack.settings.index_prefix}-{SOAK_INDEX}/_refresh"))
        missing = stale = pending = 0
        names = list(kept.acknowledged)
        for at in range(0, len(names), 500):
            some = names[at : at + 500]
            call = Call("POST", f"/{stack.settings.index_prefix}-{SOAK_INDEX}/_mget", orjson.dumps({"ids": some}))
            for one in search.send(call)["docs"]:
                source = one.get("_source")
                missing += source is None
                if source is not None:
                    stale += source["version"] < kept.acknowledged[one["_id"]]
                    pending += source["state"] != "encoded"
        return {"acknowledged": len(names), "missing": missing, "stale": stale, "not_encoded": pending}
    finally:
        search.close()


async def run_soak(stack: SoakStack, given: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    texts = [document.text[:2000] for document in read_stdlib_documents(3000) if document.text]
    addresses = [f"http://127.0.0.1:{port}" for port in stack.ports]
    clients = SoakClients(addresses, read_everyday_questions(), texts, given.clients)
    await clients.closed_loop(given.warm, given.share, given.documents)  # warms what is compiled and cached
    capacity = await clients.closed_loop(given.warm, given.share, given.documents)
    print(f"capacity: {capacity:.1f} units a second (a document and {given.share} searches each)", flush=True)
    await _wait_until_settled(stack)
    clients.kept.searches.clear()
    clients.kept.failed.clear()
    seconds, rate = given.minutes * 60, capacity * given.load
    samples: list[ProcessSample] = []
    restarts: list[dict[str, Any]] = []
    watching = asyncio.create_task(_sample_processes(stack, samples))
    rolling = asyncio.create_task(_restart_parts(stack, seconds, restarts))
    await clients.at_rate(rate, seconds, given.share, given.documents)
    await rolling
    watching.cancel()
    settled = await _wait_until_settled(stack)
    minutes = percentiles_by_minute(clients.kept.searches, seconds)
    thirds = [_third_percentiles(clients.kept.searches, seconds, number) for number in range(3)]
    return {
        "capacity_units_a_second": round(capacity, 2),
        "searches": len(clients.kept.searches),
        "asked_again": clients.kept.asked_again,
        "writes_asked_again": clients.kept.refused,
        "failed": clients.kept.failed[:20],
        "failures": len(clients.kept.failed),
        "by_third": {"before": thirds[0], "while restarting": thirds[1], "after": thirds[2]},
        "p99_after_over_before": round(thirds[2]["p99"] / thirds[0]["p99"], 3),
        "by_minute": minutes,
        "memory_mib": memory_slopes(samples),
        "restarts": restarts,
        "settled_seconds": round(settled, 1),
        "documents": count_lost(stack, clients.kept),
    }


def _third_percentiles(searches: Sequence[tuple[float, float]], seconds: float, number: int) -> dict[str, float]:
    return summarise_durations(
        [took for at, took in searches if number * seconds / 3 <= at < (number + 1) * seconds / 3], 2
    )


async def _wait_until_settled(stack: SoakStack) -> float:
    """Seconds until nothing is pending. Raises RuntimeError when it never ends."""
    loop = asyncio.get_running_loop()
    began, search = loop.time(), SyncSearchClient(stack.settings)
    try:
        while loop.time() < began + _SETTLE_SECONDS:
            path = f"/{stack.settings.index_prefix}-{SOAK_INDEX}"
            search.send(Call("POST", f"{path}/_refresh"))
            count = search.send(Call("POST", f"{path}/_count", _PENDING_QUERY))
            if not count["count"]:
                return loop.time() - began
            await asyncio.sleep(1)
    finally:
        search.close()
    raise RuntimeError("documents are still pending")


def measure_soak(given: argparse.Namespace) -> dict[str, Any]:
    """The run, with what it was made of."""
    with open_soak_stack(given.workers) as stack:
        figures = uvloop.run(_create_index(stack, given))
        figures["opensearch"] = read_opensearch_version(stack.settings)
    after = figures["by_third"]["after"]
    print(
        f"{figures['searches']:,} searches, {figures['failures']} failed; p99 {after['p99']:.1f} ms after, "
        f"{figures['p99_after_over_before']:.2f} of before; documents {figures['documents']}",
        flush=True,
    )
    return figures


async def _create_index(stack: SoakStack, given: argparse.Namespace) -> dict[str, Any]:
    async with LoopbackConnection(f"http://127.0.0.1:{stack.ports[0]}") as connection:
        await connection.send("PUT", f"/v1/indexes/{SOAK_INDEX}", b"{}")
    return await run_soak(stack, given)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = make_parser("soak", __doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--load", type=float, default=0.7, help="share of the capacity")
    parser.add_argument("--share", type=int, default=10, help="searches for each document")
    parser.add_argument("--documents", type=int, default=2000, help="ids that are written, each again and again")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1, help="processes of the worker")
    parser.add_argument("--warm", type=float, default=30, help="seconds of warming, and of measuring the capacity")
    run_benchmark("soak", parser, measure_soak, arguments)


if __name__ == "__main__":
    main()
