"""What does a batch gain? The same searches one after the other, over several connections at once, and in one request.

    python -m benchmarks.batch --json benchmarks/results/batch.json

One API process and one node on the same machine; each side takes its turn with the same questions in a new order. The
figure is searches a second and, because a busy machine's clock says little, the ratio of sides within the run.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import orjson
import psutil
import uvloop

from benchmarks.loopback import KeptConnection
from benchmarks.record import command_line, run
from benchmarks.service import node_settings, opensearch_version, running
from benchmarks.stdlib_index import encoded_stdlib, everyday_questions, stdlib_index
from benchmarks.timing import ratios, spread, take_turns
from services.settings import Settings

Side = Callable[[str], Awaitable[Any]]
CASES = {mode: {"mode": mode, "passage": False} for mode in ("sparse", "lexical", "hybrid")}


async def compare(
    settings: Settings, index: str, case: dict[str, Any], length: int, connections: int, rounds: int, pid: int
) -> dict[str, Any]:
    """Milliseconds that `length` searches take each way, and the API's processor time for them."""
    questions = everyday_questions()
    groups = {str(at): questions[at : at + length] for at in range(0, len(questions) - length + 1, length)}
    path = f"/v1/indexes/{index}/search"
    bodies = {question: orjson.dumps({"query": question} | case) for question in questions}
    batches = {
        name: orjson.dumps({"searches": [{"index": index, "query": question} | case for question in some]})
        for name, some in groups.items()
    }
    cpu: dict[str, float] = {}
    process = psutil.Process(pid)

    def counted(name: str, side: Side) -> Side:
        async def timed(group: str) -> None:
            before = sum(process.cpu_times()[:2])
            await side(group)
            cpu[name] = cpu.get(name, 0.0) + sum(process.cpu_times()[:2]) - before

        return timed

    async with AsyncExitStack() as opened:
        url = f"http://{settings.api_host}:{settings.api_port}"
        several = [await opened.enter_async_context(KeptConnection(url)) for _ in range(connections)]

        async def one_by_one(group: str) -> None:
            for question in groups[group]:
                await several[0].send("POST", path, bodies[question])

        async def at_once(group: str) -> None:
            async def some(connection: KeptConnection, part: Sequence[str]) -> None:
                for question in part:
                    await connection.send("POST", path, bodies[question])

            await asyncio.gather(*(some(one, groups[group][at::connections]) for at, one in enumerate(several)))

        async def batched(group: str) -> None:
            answer = await several[0].send("POST", "/v1/search/batch", batches[group])
            if any(one["status"] != 200 for one in answer["answers"]):
                raise RuntimeError("a search of the batch failed")

        sides = {"one by one": one_by_one, f"{connections} connections": at_once, "batch": batched}
        took = await take_turns({name: counted(name, side) for name, side in sides.items()}, list(groups), rounds)
    ms = {name: spread(values) for name, values in took.items()}
    calls = len(next(iter(took.values()))) + len(groups)  # (the first round's processor time is counted too)
    return {
        "ms": ms,
        "searches_a_second": {name: round(length * 1000 / one["p50"]) for name, one in ms.items()},
        "gain_over": {name: ratios(one, ms["batch"]) for name, one in ms.items() if name != "batch"},
        "api_processor_ms_a_search": {name: round(spent * 1000 / calls / length, 3) for name, spent in cpu.items()},
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The table by mode and length of the batch."""
    rows: dict[str, Any] = {}
    with node_settings() as settings:
        generation = stdlib_index(settings, encoded_stdlib(settings, given.documents))
        with running(settings, "api") as api:
            for timed in (False, True):  # a Java process is fast only after thousands of the same request
                for mode, case in CASES.items():
                    for length in given.lengths:
                        rounds = given.rounds if timed else 2
                        row = uvloop.run(
                            compare(settings, generation.index, case, length, given.connections, rounds, api.pid)
                        )
                        if timed:
                            rows[f"{mode}, {length} searches"] = row
                            print(f"{mode:>8}, {length:>3} searches: {row['searches_a_second']} a second", flush=True)
        version = opensearch_version(settings)
    return {"opensearch": version, "cases": rows}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("batch", __doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--lengths", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--connections", type=int, default=8, help="of the side that asks at once")
    parser.add_argument("--rounds", type=int, default=12)
    run("batch", parser, measure, arguments)


if __name__ == "__main__":
    main()
