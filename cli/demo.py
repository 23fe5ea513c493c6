"""`sparsewell demo`: index and search documents that every machine has, from nothing."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.demonstration import client_of, demonstrate, heading, index_documents

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from examples.stdlib.tally import Asked

INDEX = "stdlib"
SHOWN_PLACES = 3


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="keep the service running at the end")] = False,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="port of the API and the search page")] = None,
    json: Annotated[Path | None, typer.Option(help="file for the measured figures, in JSON")] = None,
) -> None:
    """Start the service, index the documentation of Python's standard library, and search it with everyday questions.

    Replaces the index stdlib. Uses services that run already, and stops at the end only those that it started.

    Example: sparsewell demo --keep
    """
    demonstrate(_show, "demo", keep=keep, port=port, json=json)


def _show(console: "Console", api_url: str, seconds: dict[str, float]) -> dict[str, Any]:
    """Run the demonstration on the running service, add the seconds of each stage, and return the figures."""
    from examples.service import Service
    from examples.stdlib.corpus import FIELDS, documents
    from examples.stdlib.questions import questions
    from examples.stdlib.service import ask, searcher
    from examples.stdlib.tally import as_json

    heading(console, "2. Index the documentation of Python's standard library")
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
    with client_of(api_url) as client:
        service = Service(client, INDEX)
        service.recreate({"fields": FIELDS})
        index_documents(console, service, corpus, seconds)
        heading(console, "3. Ask everyday questions")
        began = time.perf_counter()
        asked = ask(searcher(service), questions())
        seconds["ask"] = time.perf_counter() - began
        encoder = client.get("/readyz").json()["encoder"]
    show_tally(console, asked)
    show_contrasts(console, asked)
    rate = round(len(corpus) / seconds["encode"], 1)
    return {
        "encoder": encoder,
        "documents": len(corpus),
        "kinds": dict(sorted(kinds.items())),
        "documents_per_second": rate,
        "answers": as_json(asked),
    }


def show_tally(console: "Console", asked: Sequence["Asked"]) -> None:
    """Print how many questions each mode answered."""
    from examples.stdlib.tally import WITHIN, tally

    console.print(
        f"{len(asked)} questions of a user who does not know Python's names, written before any search was run.\n"
        "Number of questions with a right name among the hits:\n"
    )
    console.print(f"  {'':10}{'first':>12}{f'in first {WITHIN}':>16}{'median':>12}{'9 of 10 within':>18}")
    for row in tally(asked):
        first, within = _share(row.first, row.questions), _share(row.within, row.questions)
        times = f"{row.median_ms:9.1f} ms{row.p90_ms:15.1f} ms"
        console.print(f"  {row.mode:10}{first:>12}{within:>16}{times}")


def show_contrasts(console: "Console", asked: Sequence["Asked"]) -> None:
    """Print the first question of each pattern of answering modes, with the first three names of each mode."""
    from rich.text import Text

    from examples.stdlib.tally import MODES, contrasts

    console.print(
        "\nSide by side: one question for each combination of modes that answer within the\n"
        "first five (an asterisk marks the names that answer it)."
    )
    width = max((min(console.width, 120) - 4) // len(MODES), 24)
    for pattern, count, item in contrasts(asked):
        who = [mode for mode, answered in zip(MODES, pattern, strict=True) if answered]
        head = f"answered by {' and '.join(who)}" if who else "answered by no mode"
        console.print(
            Text.assemble(f"\n  {item.question.text}", (f"\n  {head} ({count} of {len(asked)} questions)", "dim"))
        )
        console.print(Text("  " + "".join(f"{'  ' + mode:{width}}" for mode in MODES).rstrip(), "dim"))
        for place in range(SHOWN_PLACES):
            console.print(_row(item, place, width))
        later = [(mode, item.rank(mode) or 0) for mode in MODES]
        found = [f"{mode} at {rank}" for mode, rank in later if rank > SHOWN_PLACES]
        if found:
            console.print(Text(f"  Further down: {', '.join(found)}.", "dim"))


def _row(item: "Asked", place: int, width: int) -> "Text":
    """Return a line with the name at a place, counted from 0, for each mode."""
    from rich.text import Text

    from examples.stdlib.tally import MODES

    line = Text("  ")
    for mode in MODES:
        ids = item.rankings[mode].ids[place : place + 1]
        right = item.question.rank(list(ids)) is not None
        cell = f"{'*' if right else ' '} {fitting(ids[0], width - 4)}" if ids else "  -"
        line.append(f"{cell:{width}}", "green" if right else "")
    line.rstrip()
    return line


def fitting(name: str, width: int) -> str:
    """Shorten a dotted name to a width, at a dot where possible, and keep its end."""
    if len(name) <= width:
        return name
    tail = name[-(width - 2) :]
    _, dot, rest = tail.partition(".")
    return f"..{rest if dot else tail}"


def _share(count: int, of: int) -> str:
    return f"{count} ({count / of:.0%})"


def _plural(kind: str) -> str:
    return {"class": "classes", "property": "properties"}.get(kind, f"{kind}s")
