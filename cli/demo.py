"""`sparsewell demo`: the service from nothing to answers, on documents that every machine has."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from examples.stdlib.service import Progress, Service
    from examples.stdlib.tally import Asked

INDEX = "stdlib"
PACKAGES = ("sparsewell", "onnxruntime", "opensearch-py", "celery", "fastapi", "numpy", "tokenizers")
LABELS = {"lexical": "keyword", "sparse": "sparse", "hybrid": "hybrid"}
SHOWN_PLACES = 3


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="leave everything running at the end")] = False,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="port of the API and the page")] = None,
    json: Annotated[Path | None, typer.Option(help="write what was measured to this file")] = None,
) -> None:
    """Start everything, index Python's standard library, ask everyday questions, show who answers them.

    Replaces the index `stdlib`. What runs already is used and goes on running; what this starts is stopped at the end.
    """
    from rich.console import Console

    from cli.result_files import require_writable
    from infra.settings import LocalSettings
    from infra.stack import running_stack
    from services.settings import Settings

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    settings = Settings.read()
    if json is not None:
        require_writable(json)
    if port is not None:
        settings = settings.model_copy(update={"api_port": port})

    began, load_before = time.perf_counter(), os.getloadavg()
    _heading(console, "1. Start OpenSearch, Redis, a worker, the sweeper and the API")
    with running_stack(LocalSettings.read(), settings, _reporter(console), keep=keep) as stack:
        seconds = {"start": time.perf_counter() - began}
        figures = _show(console, stack.api_url, seconds)
        seconds["total"] = time.perf_counter() - began
        figures["seconds"] = {stage: round(value, 2) for stage, value in seconds.items()}
        if json is not None:
            _write(json, figures, load_before)
        console.print(f"\nAll of it took {seconds['total']:.0f} seconds.")
        if keep:
            console.print(f"The search page, until `make down` (or `sparsewell down`):\n\n  {stack.api_url}/\n")
        else:
            console.print(
                "What this started is stopped again now. `make demo KEEP=1` leaves it running,\n"
                f"with the search page at\n\n  {stack.api_url}/\n"
            )


def _show(console: "Console", api_url: str, seconds: dict[str, float]) -> dict[str, Any]:
    """Everything that happens on the running service; returns the figures and fills in the seconds of each stage."""
    import httpx

    from examples.stdlib.corpus import FIELDS, documents
    from examples.stdlib.questions import questions
    from examples.stdlib.service import Service, ask
    from examples.stdlib.tally import as_json
    from services.errors import BackendUnavailable

    _heading(console, "2. Index the documentation of Python's standard library")
    began = time.perf_counter()
    corpus = documents()
    seconds["read_corpus"] = time.perf_counter() - began
    kinds = Counter(document["metadata"]["kind"] for document in corpus)
    python = ".".join(str(part) for part in sys.version_info[:3])
    console.print(
        f"{len(corpus):,} documents from Python {python}, read in {seconds['read_corpus']:.1f} s:\n"
        + ", ".join(f"{count:,} {_plural(kind)}" for kind, count in kinds.most_common())
        + "."
    )
    try:
        # trust_env: a proxy that is set for the outside world must not come between us and this machine.
        with httpx.Client(base_url=api_url, timeout=30, trust_env=False) as client:
            service = Service(client, INDEX)
            service.recreate(FIELDS)
            _index(console, service, corpus, seconds)
            _heading(console, "3. Ask everyday questions")
            began = time.perf_counter()
            asked = ask(service.search, questions())
            seconds["ask"] = time.perf_counter() - began
            encoder = client.get("/readyz").json()["encoder"]
    except httpx.HTTPError as error:
        raise BackendUnavailable(
            "api_unavailable", f"The API at {api_url} stopped answering ({type(error).__name__}); see its log."
        ) from None
    _show_tally(console, asked)
    _show_contrasts(console, asked)
    rate = round(len(corpus) / seconds["encode"], 1)
    return {
        "encoder": encoder,
        "documents": len(corpus),
        "kinds": dict(sorted(kinds.items())),
        "documents_per_second": rate,
        "answers": as_json(asked),
    }


def _index(console: "Console", service: "Service", corpus: Sequence[dict[str, Any]], seconds: dict[str, float]) -> None:
    """Sends the documents and follows the worker until it has encoded all of them."""
    from examples.stdlib.service import follow

    began = time.perf_counter()
    job = service.send(corpus)
    seconds["accept"] = time.perf_counter() - began
    console.print(
        f"Accepted in {seconds['accept']:.1f} s: every document is stored, and found by keyword.\n"
        "The worker encodes them now, which makes them found by meaning."
    )
    for _ in _shown(console, follow(lambda: service.job(job), began)):
        pass
    seconds["encode"] = time.perf_counter() - began
    rate = len(corpus) / seconds["encode"]
    console.print(f"Encoded in {seconds['encode']:.0f} s: {rate:,.0f} documents a second.")


def _shown(console: "Console", steps: Iterable["Progress"]) -> Iterator["Progress"]:
    """Passes the steps on and shows them: as a bar in a terminal, elsewhere as some twenty lines."""
    if not console.is_terminal or console.is_dumb_terminal:
        seconds, share = 0.0, 0.0
        for step in steps:
            waited, moved = step.seconds - seconds, step.encoded / max(step.total, 1) - share
            if waited >= 30 or (waited >= 5 and moved >= 0.05):
                seconds, share = step.seconds, share + moved
                console.print(
                    f"  {step.encoded:>6,} of {step.total:,} encoded after {step.seconds:3.0f} s, "
                    f"{step.rate:,.0f} a second"
                )
            yield step
        return

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]:,.0f} a second")
    columns = (TextColumn("  encoded"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, rate=0.0)
        for step in steps:
            bar.update(task, total=step.total, completed=step.encoded, rate=step.rate)
            yield step


def _show_tally(console: "Console", asked: Sequence["Asked"]) -> None:
    from examples.stdlib.tally import WITHIN, tally

    console.print(
        f"{len(asked)} questions in the words of somebody who does not know Python's names,\n"
        "written before any search was run. How many have a name that does the job:\n"
    )
    console.print(f"  {'':10}{'first':>12}{f'in first {WITHIN}':>16}{'median':>12}{'9 of 10 within':>18}")
    for row in tally(asked):
        first, within = _share(row.first, row.questions), _share(row.within, row.questions)
        times = f"{row.median_ms:9.1f} ms{row.p90_ms:15.1f} ms"
        console.print(f"  {LABELS[row.mode]:10}{first:>12}{within:>16}{times}")


def _show_contrasts(console: "Console", asked: Sequence["Asked"]) -> None:
    """The first question of each pattern of who answered: the first three names of each mode."""
    from rich.text import Text

    from examples.stdlib.tally import MODES, contrasts

    console.print(
        "\nSide by side: for each pattern of who answers within the first five, the first\n"
        "such question of the file (an asterisk marks the names that answer it)."
    )
    width = max((min(console.width, 120) - 4) // len(MODES), 24)
    for pattern, count, item in contrasts(asked):
        who = [LABELS[mode] for mode, answered in zip(MODES, pattern, strict=True) if answered]
        head = f"answered by {' and '.join(who)}" if who else "answered by none"
        console.print(
            Text.assemble(f"\n  {item.question.text}", (f"\n  {head} ({count} of {len(asked)} questions)", "dim"))
        )
        console.print(Text("  " + "".join(f"{'  ' + LABELS[mode]:{width}}" for mode in MODES).rstrip(), "dim"))
        for place in range(SHOWN_PLACES):
            console.print(_row(item, place, width))
        later = [(mode, item.rank(mode) or 0) for mode in MODES]
        found = [f"{LABELS[mode]} at {rank}" for mode, rank in later if rank > SHOWN_PLACES]
        if found:
            console.print(Text(f"  Further down: {', '.join(found)}.", "dim"))


def _row(item: "Asked", place: int, width: int) -> "Text":
    """One line: for each mode the name at a place, counted from 0."""
    from rich.text import Text

    from examples.stdlib.tally import MODES

    line = Text("  ")
    for mode in MODES:
        ids = item.rankings[mode].ids[place : place + 1]
        right = item.question.rank(list(ids)) is not None
        cell = f"{'*' if right else ' '} {_fitting(ids[0], width - 4)}" if ids else "  -"
        line.append(f"{cell:{width}}", "green" if right else "")
    line.rstrip()
    return line


def _fitting(name: str, width: int) -> str:
    """A dotted name cut to a width, at a dot where possible; its end says more than its beginning."""
    if len(name) <= width:
        return name
    tail = name[-(width - 2) :]
    _, dot, rest = tail.partition(".")
    return f"..{rest if dot else tail}"


def _share(count: int, of: int) -> str:
    return f"{count} ({count / of:.0%})"


def _plural(kind: str) -> str:
    return {"class": "classes", "property": "properties"}.get(kind, f"{kind}s")


def _heading(console: "Console", text: str) -> None:
    from rich.text import Text

    console.print(Text(f"\n{text}", "bold"))


def _reporter(console: "Console") -> Callable[[str], None]:
    return lambda message: console.print(message, markup=False)


def _write(path: Path, figures: Mapping[str, Any], load_before: Sequence[float]) -> None:
    """Writes what was measured in the shape of benchmarks/results.

    The load averages tell whether the machine did something else meanwhile; then the times mean little.
    """
    import json

    from cli.relevance.provenance import provenance

    load = {"before": load_before, "after": os.getloadavg()}
    result = {
        "benchmark": "stdlib_demo",
        "parameters": {"command": "sparsewell demo"},
        "load_average": {when: [round(value, 2) for value in values] for when, values in load.items()},
        **provenance(PACKAGES),
        "figures": figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
