"""What does journalling cost? Documents a second end to end, with the journal and without it.

    python -m benchmarks.journal_cost --json benchmarks/results/journal_cost.json

With: POST to the real API, journalled, ids on the queue, read back by the worker, encoded, written. The clock runs from
the first request to the last encoded document that OpenSearch has stored. Without: the same documents in messages that
are put on the queue directly, taken by the same worker processes, encoded by the same code, written once
(benchmarks.unjournalled). No HTTP and no API process on that side: all of that counts as cost of the journal here.
Rounds take turns on the same cores; goal: at most a fifth.
"""

import argparse
import random
import sys
import time
from contextlib import ExitStack, closing, suppress
from statistics import median
from typing import Any

import orjson
import uvloop
from celery import Celery

from benchmarks.filled_index import create
from benchmarks.loopback import KeptConnection
from benchmarks.record import command_line, run
from benchmarks.service import opensearch_version, running, service_settings
from benchmarks.stdlib_index import SPEC, stdlib_documents
from benchmarks.unjournalled import QUEUE, TASK
from services.errors import BackendUnavailable, Conflict
from services.index_spec import Generation, Names
from services.opensearch.client import Call, SyncSearch
from services.opensearch.generations import count_call, create_jobs_call, delete_call, read_counts, refresh_call
from services.settings import Settings

GOAL = 0.20
_LONGEST_SECONDS = 900.0
Item = dict[str, Any]


class Rounds:
    """Rounds of both kinds through one worker."""

    def __init__(self, settings: Settings, search: SyncSearch, broker: Celery, documents: list[Item]) -> None:
        self._settings, self._search, self._broker, self._documents = settings, search, broker, documents
        self._rate = 50.0
        self._count = 0

    def journalled(self) -> float:
        """Documents a second of the service as it is."""
        return self._round(self._post, writes=2)

    def unjournalled(self) -> float:
        """Documents a second of the comparison."""
        return self._round(self._publish, writes=1)

    def _round(self, send: Any, *, writes: int) -> float:
        self._count += 1
        generation = create(self._search, self._settings, f"round{self._count}", SPEC)
        time.sleep(1)
        begun = time.monotonic()
        send(generation.index)
        self._wait(generation, writes * len(self._documents))
        seconds = time.monotonic() - begun
        self._check(generation)
        self._rate = len(self._documents) / seconds
        return self._rate

    def _post(self, index: str) -> None:
        async def send() -> None:
            async with KeptConnection(f"http://{self._settings.api_host}:{self._settings.api_port}") as connection:
                for at in range(0, len(self._documents), 500):
                    body = b"\n".join(map(orjson.dumps, self._documents[at : at + 500]))
                    await connection.send("POST", f"/v1/indexes/{index}/documents", body, "application/x-ndjson")

        uvloop.run(send())

    def _publish(self, index: str) -> None:
        step = self._settings.message_documents
        for at in range(0, len(self._documents), step):
            body = {"index": index, "documents": self._documents[at : at + step]}
            self._broker.send_task(TASK, kwargs=body, queue=QUEUE, ignore_result=True, kwargsrepr="{...}")

    def _wait(self, generation: Generation, writes: int) -> None:
        """Until so many writes were stored. Looks rarely at first, so that looking costs nothing."""
        end = time.monotonic() + _LONGEST_SECONDS
        call = Call("GET", f"/{generation.physical}/_stats/indexing", params={"filter_path": "_all.primaries"})
        while True:
            total = self._search.send(call)["_all"]["primaries"]["indexing"]["index_total"]
            if total >= writes:
                return
            if time.monotonic() > end:
                raise BackendUnavailable("benchmark_stuck", f"{total} of {writes} writes were stored.")
            time.sleep(min(1.0, max(0.02, (writes - total) / self._rate / 3)))

    def _check(self, generation: Generation) -> None:
        self._search.send(refresh_call(generation.physical))
        states = read_counts(self._search.send(count_call(generation.physical)))
        if states["encoded"] != len(self._documents):
            raise BackendUnavailable("benchmark_failed", f"Not every document was encoded: {states}.")
        self._search.send(delete_call([generation]))


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Documents a second of each side by round, and what the journal costs of them."""
    documents = [
        {"id": one.id, "title": one.title, "text": one.text, "metadata": one.metadata}
        for one in stdlib_documents(given.documents)
    ]
    found: dict[str, list[float]] = {"journalled": [], "unjournalled": []}
    with ExitStack() as stack:
        base = stack.enter_context(service_settings())
        settings = base.model_copy(update={"worker_concurrency": given.processes})
        search = stack.enter_context(closing(SyncSearch(settings)))
        with suppress(Conflict):
            search.send(create_jobs_call(Names(settings.index_prefix), settings))
        stack.enter_context(running(settings, "api"))
        command = (sys.executable, "-m", "benchmarks.unjournalled")
        stack.enter_context(running(settings, "worker", command))
        broker = stack.enter_context(Celery(broker=settings.redis_address, set_as_current=False))
        rounds = Rounds(settings, search, broker, documents)
        sides = {"journalled": rounds.journalled, "unjournalled": rounds.unjournalled}
        print("warming up", flush=True)
        for side in sides.values():
            side()
        for number in range(1, given.rounds + 1):
            for name in random.Random(number).sample(list(sides), len(sides)):
                found[name].append(sides[name]())
                print(f"round {number}: {name:>12}: {found[name][-1]:6.1f} documents a second", flush=True)
        version = opensearch_version(settings)
    costs = [1 - mine / bare for mine, bare in zip(found["journalled"], found["unjournalled"], strict=True)]
    cost = round(median(costs), 3)
    print(f"the journal costs {cost:.1%} of the documents a second; goal: at most {GOAL:.0%}")
    return {
        "opensearch": version,
        "documents": len(documents),
        "encoder": settings.encoder,
        "median": {name: round(median(values), 2) for name, values in found.items()},
        "rounds": {name: [round(value, 2) for value in values] for name, values in found.items()},
        "cost": cost,
        "cost_by_round": [round(value, 3) for value in costs],
        "target": {"cost": GOAL, "reached": cost <= GOAL},
    }


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("journal_cost", __doc__)
    parser.add_argument("--documents", type=int, default=1280)
    parser.add_argument("--processes", type=int, default=2, help="of the worker")
    parser.add_argument("--rounds", type=int, default=5)
    run("journal_cost", parser, measure, arguments)


if __name__ == "__main__":
    main()
