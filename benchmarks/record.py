"""The command line and the result file that all benchmarks share: figures, parameters, and where they come from."""

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from cli.relevance.provenance import provenance
from services.errors import SparsewellError

PACKAGES = (
    "sparsewell", "opensearch-py", "aiohttp", "uvicorn", "uvloop", "fastapi", "pydantic", "orjson", "onnxruntime",
    "tokenizers", "numpy", "celery", "kombu", "torch", "transformers", "sentence-transformers", "triton",
)  # fmt: skip

Measure = Callable[[argparse.Namespace], Mapping[str, Any]]


def command_line(name: str, described: str) -> argparse.ArgumentParser:
    """A parser of `python -m benchmarks.NAME` with what every benchmark takes."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=described.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, with machine and versions")
    return parser


def run(name: str, parser: argparse.ArgumentParser, measure: Measure, given: list[str] | None = None) -> None:
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
        "parameters": _parameters(arguments),
        "load_average": {"before": _rounded(before), "after": _rounded(os.getloadavg())},
        **provenance(PACKAGES),
        "figures": figures,
    }
    if "opensearch" in figures:
        result["versions"]["opensearch"] = figures.pop("opensearch")
    result["figures"] = figures
    result["machine"]["memory_gib"] = round(psutil.virtual_memory().total / 1024**3, 1)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments as given; of folders only the name, because paths are this machine's."""
    return {
        name: value.name if isinstance(value, Path) else value
        for name, value in vars(arguments).items()
        if name not in ("json", "cache")
    }


def _rounded(load: tuple[float, float, float]) -> list[float]:
    return [round(value, 2) for value in load]


def choose(commands: Mapping[str, Callable[[list[str]], None]], given: list[str] | None = None) -> None:
    """Run the benchmark that the first argument names, with the rest of the arguments."""
    parser = argparse.ArgumentParser(description="Run one of the benchmarks of this module.")
    parser.add_argument("name", choices=list(commands))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the benchmark; try --help")
    chosen = parser.parse_args(given)
    commands[chosen.name](chosen.arguments)
