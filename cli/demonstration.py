"""Common steps of the demonstrations: start the service, index with progress, write the measured figures."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx
    from rich.console import Console

    from examples.service import IngestProgress, ServiceIndex

RESULT_NAMES = {"demo": "stdlib_demo", "demo-talk": "talk_demo"}
# Runs the steps on the service at an address, adds the seconds of each stage, and returns the figures.
DemonstrationSteps = Callable[["Console", str, dict[str, float]], dict[str, Any]]


def run_demonstration(
    show: DemonstrationSteps, command: str, *, keep: bool, port: int | None, json: Path | None
) -> None:
    """Start the service, run a demonstration on it, and stop the started services, unless `keep`.

    `command` is the name of the `sparsewell` command and the make target. `json` is the file for the figures.
    Raises ConfigurationError (`needs_checkout`) where `examples` is missing, as in the images.
    """
    from rich.console import Console

    from cli.api_client import require_writable
    from infra.local_servers import LocalSettings
    from infra.stack import running_stack
    from services.errors import ConfigurationError
    from services.settings import Settings

    if find_spec("examples") is None:
        raise ConfigurationError("needs_checkout", f"The examples are in a checkout only: run `make {command}` there.")
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    settings = Settings.read()
    if json is not None:
        require_writable(json)
    if port is not None:
        settings = settings.model_copy(update={"api_port": port})

    began, load_before = time.perf_counter(), os.getloadavg()
    print_heading(console, "1. Start OpenSearch, Redis, a worker, the sweeper and the API")
    with running_stack(LocalSettings.read(), settings, make_reporter(console), keep=keep) as stack:
        seconds = {"start": time.perf_counter() - began}
        figures = show(console, stack.api_url, seconds)
        seconds["total"] = time.perf_counter() - began
        figures["seconds"] = {stage: round(value, 2) for stage, value in seconds.items()}
        if json is not None:
            write_figures(json, command, figures, load_before)
        console.print(f"\nTotal time: {seconds['total']:.0f} seconds.")
        if keep:
            console.print(f"The search page, until `make down` (or `sparsewell down`):\n\n  {stack.api_url}/\n")
        else:
            console.print(
                f"The started processes stop now. `make {command} KEEP=1` keeps them running,\n"
                f"with the search page at\n\n  {stack.api_url}/\n"
            )


@contextmanager
def open_client(api_url: str) -> Iterator["httpx.Client"]:
    """Yield a client of the API. Raises BackendUnavailable (`api_unavailable`) if the API stops answering."""
    import httpx

    from cli.api_client import own_key_headers
    from services.errors import BackendUnavailable

    try:
        # trust_env: requests to this machine must not go through a proxy of the environment.
        with httpx.Client(base_url=api_url, timeout=30, trust_env=False, headers=own_key_headers()) as client:
            yield client
    except httpx.HTTPError as error:
        raise BackendUnavailable(
            "api_unavailable", f"The API at {api_url} stopped answering ({type(error).__name__}); see its log."
        ) from None


def print_heading(console: "Console", text: str) -> None:
    """Print the heading of a step."""
    from rich.text import Text

    console.print(Text(f"\n{text}", "bold"))


def make_reporter(console: "Console") -> Callable[[str], None]:
    """Return a function that prints the messages of the stack."""
    return lambda message: console.print(message, markup=False)


def index_documents(
    console: "Console", service: "ServiceIndex", corpus: Sequence[dict[str, Any]], seconds: dict[str, float]
) -> None:
    """Send the documents; wait until the worker has encoded all, and until query weights are adapted to them."""
    from cli.relevance.live import wait_until_adapted
    from examples.service import follow_job

    began = time.perf_counter()
    job = service.send(corpus)
    seconds["accept"] = time.perf_counter() - began
    console.print(
        f"Accepted in {seconds['accept']:.1f} s: every document is stored, and lexical search finds it.\n"
        "The worker now encodes the documents, so that sparse search finds them."
    )
    for _ in show_progress(console, follow_job(lambda: service.job(job), began)):
        pass
    seconds["encode"] = time.perf_counter() - began
    console.print(
        f"Encoded in {seconds['encode']:.0f} s: {_format_rate(len(corpus) / seconds['encode'])} documents per second."
    )
    if wait_until_adapted(service.inspect):
        console.print("The sweeper has counted the pieces of the documents: query weights are adapted to the index.")


def show_progress(console: "Console", steps: Iterable["IngestProgress"]) -> Iterator["IngestProgress"]:
    """Yield the steps and show them: as a bar on a terminal, as about twenty lines on other outputs."""
    if not console.is_terminal or console.is_dumb_terminal:
        seconds, share = 0.0, 0.0
        for step in steps:
            elapsed, progress = step.seconds - seconds, step.encoded / max(step.total, 1) - share
            if elapsed >= 30 or (elapsed >= 5 and progress >= 0.05):
                seconds, share = step.seconds, share + progress
                console.print(
                    f"  {step.encoded:>6,} of {step.total:,} encoded after {step.seconds:3.0f} s, "
                    f"{_format_rate(step.rate)} per second"
                )
            yield step
        return

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]} per second")
    columns = (TextColumn("  encoded"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, rate="0")
        for step in steps:
            bar.update(task, total=step.total, completed=step.encoded, rate=_format_rate(step.rate))
            yield step


def write_figures(path: Path, command: str, figures: Mapping[str, Any], load_before: Sequence[float]) -> None:
    """Write the measured figures in the format of benchmarks/results.

    The load averages show whether other processes disturbed the times.
    """
    import json

    from cli.relevance.provenance import DEMONSTRATION_PACKAGES, collect_provenance

    load = {"before": load_before, "after": os.getloadavg()}
    result = {
        "benchmark": RESULT_NAMES[command],
        "parameters": {"command": f"sparsewell {command}"},
        "load_average": {when: [round(value, 2) for value in values] for when, values in load.items()},
        **collect_provenance(DEMONSTRATION_PACKAGES),
        "figures": figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _format_rate(rate: float) -> str:
    """Format a rate. A slow rate, as of talks, has a decimal."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
