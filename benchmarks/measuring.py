"""Measurement: the command line and the result file of a benchmark, and fair comparison of two or more sides.

Sides take turns, query by query in a random order, so that other load on the machine meets all of them alike.
`summarise_durations` and `percentile_ratios` turn durations into figures.
"""

import argparse
import json
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import orjson
import psutil

from benchmarks.service import LoopbackConnection
from cli.relevance.provenance import collect_provenance
from services.errors import SparsewellError
from services.settings import Settings

PERCENTILES = (10, 50, 90, 99)
RECORDED_PACKAGES = (
    "sparsewell", "opensearch-py", "aiohttp", "uvicorn", "uvloop", "fastapi", "pydantic", "orjson", "onnxruntime",
    "tokenizers", "numpy", "celery", "kombu", "torch", "transformers", "sentence-transformers", "triton",
)  # fmt: skip
MeasureFunction = Callable[[argparse.Namespace], Mapping[str, Any]]
# Index, and the members of a request beside its query.
SearchSide = tuple[str, Mapping[str, Any]]


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser of `python -m benchmarks NAME` with the options that every benchmark has."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, with machine and versions")
    return parser


def run_benchmark(name: str, parser: argparse.ArgumentParser, measure: MeasureFunction, argv: list[str] | None) -> None:
    """Measure and write the result file. An error of sparsewell ends the command with its message and no trace.

    The result has the load averages before and after: on a machine with other load, only ratios within a run compare.
    """
    arguments = parser.parse_args(argv)
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
    """Return the arguments. Only the name of a path is kept, because folders differ by machine."""
    return {
        name: value.name if isinstance(value, Path) else value
        for name, value in vars(arguments).items()
        if name not in ("json", "cache")
    }


def _round_load(load: tuple[float, float, float]) -> list[float]:
    return [round(value, 2) for value in load]


async def take_turns(
    sides: Mapping[str, Callable[[str], Awaitable[Any]]], queries: Sequence[str], rounds: int, seed: int = 1
) -> dict[str, list[float]]:
    """Return the milliseconds of each side, call by call. The first round is not counted.

    Every query goes to every side, the sides in a new order each time, so the i-th values of all sides belong together.
    """
    order = random.Random(seed)
    names = list(sides)
    durations: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for query in order.sample(queries, len(queries)):
            for name in order.sample(names, len(names)):
                started = perf_counter()
                await sides[name](query)
                if turn > 0:
                    durations[name].append((perf_counter() - started) * 1000)
    return durations


async def measure_processor_time(
    read: Callable[[], Awaitable[float]],
    sides: Mapping[str, Callable[[str], Awaitable[Any]]],
    queries: Sequence[str],
    rounds: int,
    seed: int = 1,
) -> dict[str, float]:
    """Return the processor milliseconds per call that each side costs a server.

    `read` returns the server's processor milliseconds since its start. Each round sends all queries of one side, then
    of the next, in a new order. Other load disturbs processor time less than the clock; the server's garbage collection
    is included.
    """
    order = random.Random(seed)
    spent = dict.fromkeys(sides, 0.0)
    for _ in range(rounds):
        for name in order.sample(list(sides), len(sides)):
            before = await read()
            for query in queries:
                await sides[name](query)
            spent[name] += await read() - before
    return {name: round(value / (rounds * len(queries)), 3) for name, value in spent.items()}


async def compare_searches(
    settings: Settings, sides: Mapping[str, SearchSide], queries: Sequence[str], rounds: int
) -> dict[str, dict[str, Any]]:
    """Return the milliseconds of each side, percentile ratios to the first side, and the mean number of hits.

    A client with a kept connection parses the answers.
    """
    plain = next(iter(sides))
    hit_counts: dict[str, list[int]] = {name: [] for name in sides}
    async with LoopbackConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:

        def make_sender(name: str) -> Any:
            index, members = sides[name]

            async def send(query: str) -> None:
                body = orjson.dumps({"query": query, **members})
                answer = await connection.send("POST", f"/v1/indexes/{index}/search", body)
                hit_counts[name].append(len(answer["hits"]))

            return send

        durations = await take_turns({name: make_sender(name) for name in sides}, queries, rounds)
    ms = {name: summarise_durations(values) for name, values in durations.items()}
    return {
        name: {
            "ms": ms[name],
            f"over {plain}": percentile_ratios(ms[name], ms[plain]),
            "hits_mean": round(sum(hit_counts[name]) / len(hit_counts[name]), 2),
        }
        for name in sides
    }


def summarise_durations(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return p10 (a call without disturbance), p50, p90, p99 and the mean."""
    figures = {f"p{p}": float(v) for p, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}
    return {name: round(value, digits) for name, value in (figures | {"mean": float(np.mean(values))}).items()}


def percentile_ratios(numerator: Mapping[str, float], denominator: Mapping[str, float]) -> dict[str, float]:
    """Return each percentile of one side over the other side's."""
    return {name: round(numerator[name] / denominator[name], 3) for name in numerator if name.startswith("p")}


def process_processor_ms(pid: int) -> float:
    """Return the processor milliseconds of a process, with all its threads and without its children."""
    return float(sum(psutil.Process(pid).cpu_times()[:2])) * 1000
