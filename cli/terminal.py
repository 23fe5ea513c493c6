"""The terminal: options that commands share, progress of long commands, and foreign text on one line.

A terminal shows a bar. Other outputs get a line every five seconds (loading) or ten (training). `LoadDisplay` counts
documents, `TrainingConsole` shows the loss and the evaluations, and `show_stages` draws a bar for each stage.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from cli.relevance.live import StageProgress

ApiOption = Annotated[str | None, typer.Option("--api", help="address of the API; default: from the settings")]
RetrySecondsOption = Annotated[
    float,
    typer.Option(
        "--retry-seconds",
        "--patience",
        min=0,
        help="seconds to wait for an unavailable service (--patience: former name)",
    ),
]

LOAD_LINE_SECONDS = 5.0
TRAINING_LINE_SECONDS = 10.0


# Joiners of emoji and of several scripts. They print nothing and change no other text.
_JOINERS = "\u200c\u200d"
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def sanitise_line(text: str) -> str:
    """Replace line breaks and other spaces by a space, and make control characters visible, such as `\\x1b`.

    A terminal would obey them: a text could move the cursor, set the title or turn the direction of writing.
    """
    return "".join(map(_show_character, text))


def _show_character(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    if character.isspace():
        return " "
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def format_json(value: Any) -> str:
    """Return a value as indented JSON with all control characters escaped."""
    return escape_json(json.dumps(value, ensure_ascii=False, indent=2))


def escape_json(text: str) -> str:
    """Return JSON with those control characters escaped that JSON allows unescaped."""
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class SingleBarConsole:
    """A console with at most one bar. Leaving the context ends the bar."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._bar: Progress | None = None
        self._title = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def report(self, message: str) -> None:
        """Print a permanent line, or several. Control characters are made visible."""
        shown = "\n".join(map(sanitise_line, message.split("\n")))
        (self._bar.console if self._bar else self._console).print(shown, markup=False, highlight=False, soft_wrap=True)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class LoadDisplay(SingleBarConsole):
    """Progress of documents. A rate counts from the start of its bar."""

    def __init__(self, console: "Console") -> None:
        super().__init__(console)
        self._began = self._printed = 0.0
        self._first = 0

    def begin(self, title: str, total: int, first: int = 0, unit: str = "") -> None:
        """Start a bar of `total`. The rate leaves out the `first` documents, which an earlier run sent."""
        self._end()
        self._title, self._first = title, first
        self._began = self._printed = time.monotonic()
        if self._console.is_terminal:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TaskProgressColumn,
                TextColumn,
                TimeElapsedColumn,
            )

            count = [MofNCompleteColumn()] if unit else [TaskProgressColumn()]
            text, rate = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
            self._bar = Progress(text, BarColumn(), *count, rate, TimeElapsedColumn(), console=self._console)
            self._bar.add_task(title, total=total, note="")
            self._bar.start()

    def step(self, done: int, total: int, documents: int) -> None:
        """Show `done` of `total` and the number of documents so far."""
        now = time.monotonic()
        rate = (documents - self._first) / max(1e-9, now - self._began)
        note = f"{documents:,} documents, {rate:,.0f} per second"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, note=note)
        elif now - self._printed >= LOAD_LINE_SECONDS:
            self._printed = now
            self.report(f"{self._title}: {100 * done / max(1, total):.0f} %, {note}")


class TrainingConsole(SingleBarConsole):
    """Progress of a training run. Implements `models.progress.ProgressReporter`."""

    def __init__(self, console: "Console") -> None:
        super().__init__(console)
        self._printed = 0.0

    def step(self, title: str, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total` of the stage `title`. A new title starts a new bar."""
        if title != self._title:
            self._end()
            self._title, self._printed = title, time.monotonic()
            if self._console.is_terminal:
                from rich.progress import (
                    BarColumn,
                    MofNCompleteColumn,
                    Progress,
                    TextColumn,
                    TimeElapsedColumn,
                    TimeRemainingColumn,
                )

                text, notes = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
                times = TimeElapsedColumn(), TimeRemainingColumn()
                self._bar = Progress(text, BarColumn(), MofNCompleteColumn(), *times, notes, console=self._console)
                self._bar.add_task(title, total=total, note="")
                self._bar.start()
            else:
                self.report(f"{title}.")
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, note=note)
        elif time.monotonic() - self._printed >= TRAINING_LINE_SECONDS:
            self._printed = time.monotonic()
            self.report(f"{title}: {done:,} of {total:,}{', ' if note else ''}{note}")

    def trained(self, step: int, steps: int, logs: Mapping[str, float]) -> None:
        """Show the trainer's figures of the last steps."""
        shown = {"loss": "loss", "document_regularizer_loss": "regulariser"}
        note = ", ".join(f"{name} {logs[key]:.3g}" for key, name in shown.items() if key in logs)
        self.step("Training", step, steps, note)

    def evaluated(self, entry: Mapping[str, Any]) -> None:
        """Print an evaluation as a line."""
        collections = ", ".join(
            f"{name} {scores['sparse']:.3f} (BM25 {scores['bm25']:.3f}, hybrid {scores['hybrid']:.3f})"
            for name, scores in entry["collections"].items()
        )
        weights, flops = (
            sum(scores[figure] for scores in entry["collections"].values()) / len(entry["collections"])
            for figure in ("weights_a_document", "flops")
        )
        note = "" if entry.get("eligible", True) else " It is too dense to be the best."
        self.report(
            f"Step {entry['step']:,}: NDCG@10 {entry['mean']:.4f}; {collections}; "
            f"{weights:.0f} weights per document, {flops:.1f} products per query and document.{note}"
        )


@contextmanager
def show_stages(console: "Console") -> "Iterator[StageProgress]":
    """Yield a function that draws a bar for each stage."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        tasks = {}

        def progress(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield progress
