"""The command line and the result file that all benchmarks share: figures, parameters, and where they come from.

What a process has taken of the processors since it was started.

A part of a collection, for documents so long that encoding all of them would take an hour.

Durations of two or more sides that take turns, and what is said of them.

Searches that take turns through the real API: the same queries, with other members or to another index.
"""

import argparse
import json
import os
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import orjson
import psutil

from benchmarks.service import LoopbackConnection
from cli.relevance.collection import CorpusDocument, JudgedCollection
from cli.relevance.metrics import collect_provenance
from services.errors import SparsewellError
from services.settings import Settings


def process_processor_ms(pid: int) -> float:
    """Milliseconds, of all its threads, of children none."""
    return float(sum(psutil.Process(pid).cpu_times()[:2])) * 1000


@dataclass(frozen=True, slots=True)
class CollectionSample(JudgedCollection):
    """Every n-th document, and the queries that have something to find among them."""

    every: int = 1

    def documents(self) -> Iterator[CorpusDocument]:
        """The sampled documents in file order."""
        return islice(JudgedCollection.documents(self), 0, None, self.every)


def sample_collection(collection: JudgedCollection, every: int) -> JudgedCollection:
    """The sample of every n-th document; the collection itself for 1.

    Judgements of other documents are dropped, and with them the queries that have none left. Retrieval among fewer
    documents is easier: compare figures of a sample with each other only.
    """
    if every <= 1:
        return collection
    kept = {document.id for document in islice(collection.documents(), 0, None, every)}
    judgements = {
        query: found
        for query, judged in collection.judgements.items()
        if (found := {document: grade for document, grade in judged.items() if document in kept})
    }
    name = f"{collection.name}, one document in {every}"
    return CollectionSample(name, collection.corpus, collection.queries, judgements, every)


PERCENTILES = (10, 50, 90, 99)


def summarise_durations(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """p10 (a call that nothing disturbed), p50, p90, p99 and mean."""
    found = {f"p{p}": float(v) for p, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}
    return {name: round(value, digits) for name, value in (found | {"mean": float(np.mean(values))}).items()}


def percentile_ratios(above: Mapping[str, float], below: Mapping[str, float]) -> dict[str, float]:
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


async def measure_processor_time(
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


# An index, and the members of a request beside its query.
SearchSide = tuple[str, Mapping[str, Any]]


async def compare_searches(
    settings: Settings, sides: Mapping[str, SearchSide], queries: Sequence[str], rounds: int
) -> dict[str, dict[str, Any]]:
    """Milliseconds of each side, ratios of their percentiles to those of the first, and the hits of a query (mean).

    One client with one kept connection; answers are parsed.
    """
    plain = next(iter(sides))
    found: dict[str, list[int]] = {name: [] for name in sides}
    async with LoopbackConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:

        def asker(name: str) -> Any:
            index, members = sides[name]

            async def ask(query: str) -> None:
                body = orjson.dumps({"query": query, **members})
                answer = await connection.send("POST", f"/v1/indexes/{index}/search", body)
                found[name].append(len(answer["hits"]))

            return ask

        took = await take_turns({name: asker(name) for name in sides}, queries, rounds)
    ms = {name: summarise_durations(values) for name, values in took.items()}
    return {
        name: {
            "ms": ms[name],
            f"over {plain}": percentile_ratios(ms[name], ms[plain]),
            "hits_mean": round(sum(found[name]) / len(found[name]), 2),
        }
        for name in sides
    }


RECORDED_PACKAGES = (
    "sparsewell", "opensearch-py", "aiohttp", "uvicorn", "uvloop", "fastapi", "pydantic", "orjson", "onnxruntime",
    "tokenizers", "numpy", "celery", "kombu", "torch", "transformers", "sentence-transformers", "triton",
)  # fmt: skip

MeasureFunction = Callable[[argparse.Namespace], Mapping[str, Any]]


def make_parser(name: str, described: str) -> argparse.ArgumentParser:
    """A parser of `python -m benchmarks.NAME` with what every benchmark takes."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=described.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, with machine and versions")
    return parser


def run_benchmark(
    name: str, parser: argparse.ArgumentParser, measure: MeasureFunction, given: list[str] | None = None
) -> None:
    """Measures, and writes the result. Errors of ours end with their words and no trace.

    The load averages before and after are kept: on a machine that did something else meanwhile, only the ratios of
    one run mean anything.
    """
    arguments = parser.parse_args(given)
    before = os.getloadavg()
    try:
        figures = dict(measure(arguments))
    except SparsewellError as error:
        raise SystemExit(f"{name}: {error}") from None
    result = {
        "benchmark": name,
        "parameters": _describe_parameters(arguments),
        "load_average": {"before": _round_load(before), "after": _round_load(os.getloadavg())},
        **collect_provenance(RECORDED_PACKAGES),
        "figures": figures,
    }
    if "opensearch" in figures:
        result["versions"]["opensearch"] = figures.pop("opensearch")
    result["figures"] = figures
    result["machine"]["memory_gib"] = round(psutil.virtual_memory().total / 1024**3, 1)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _describe_parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments as given; of folders only the name, because paths are this machine's."""
    return {
        name: value.name if isinstance(value, Path) else value
        for name, value in vars(arguments).items()
        if name not in ("json", "cache")
    }


def _round_load(load: tuple[float, float, float]) -> list[float]:
    return [round(value, 2) for value in load]


def choose(commands: Mapping[str, Callable[[list[str]], None]], given: list[str] | None = None) -> None:
    """Run the benchmark that the first argument names, with the rest of the arguments."""
    parser = argparse.ArgumentParser(description="Run one of the benchmarks of this module.")
    parser.add_argument("name", choices=list(commands))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the benchmark; try --help")
    chosen = parser.parse_args(given)
    commands[chosen.name](chosen.arguments)
