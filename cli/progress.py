"""Progress bars on standard error, one a stage.

The base of progress displays: permanent lines and at most one bar.

Progress for people: a bar on a terminal, a line now and then anywhere else.

Progress of a run: a bar with the last loss on a terminal, a line now and then anywhere else.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from cli.relevance.live import StageProgress


class SingleBarConsole:
    """A console with at most one bar. Leaving the context ends the bar."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._title = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def say(self, message: str) -> None:
        """Print a permanent line."""
        (self._bar.console if self._bar else self._console).print(
            message, markup=False, highlight=False, soft_wrap=True
        )

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


PLAIN_SECONDS = 5.0


class LoadDisplay(SingleBarConsole):
    """One bar at a time. Rates count from the beginning of a bar."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._began = self._told = 0.0
        self._first = 0

    def begin(self, title: str, total: int, first: int = 0, unit: str = "") -> None:
        """A new bar of `total`; `first` documents were there before."""
        self._end()
        self._title, self._first = title, first
        self._began = self._told = time.monotonic()
        if self._console.is_terminal:
            count = [MofNCompleteColumn()] if unit else [TaskProgressColumn()]
            text, rate = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
            self._bar = Progress(text, BarColumn(), *count, rate, TimeElapsedColumn(), console=self._console)
            self._bar.add_task(title, total=total, note="")
            self._bar.start()

    def step(self, done: int, total: int, documents: int) -> None:
        """`done` of `total` on the bar, and documents so far."""
        now = time.monotonic()
        rate = (documents - self._first) / max(1e-9, now - self._began)
        note = f"{documents:,} documents, {rate:,.0f} a second"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, note=note)
        elif now - self._told >= PLAIN_SECONDS:
            self._told = now
            self.say(f"{self._title}: {100 * done / max(1, total):.0f} %, {note}")


TRAINING_PLAIN_SECONDS = 10.0


class TrainingConsole(SingleBarConsole):
    """What a run says while it works; see `models.training.train.ProgressReporter`."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._told = 0.0

    def step(self, title: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` of the stage `title`; another title begins another bar."""
        if title != self._title:
            self._end()
            self._title, self._told = title, time.monotonic()
            if self._console.is_terminal:
                text, said = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
                times = TimeElapsedColumn(), TimeRemainingColumn()
                self._bar = Progress(text, BarColumn(), MofNCompleteColumn(), *times, said, console=self._console)
                self._bar.add_task(title, total=total, note="")
                self._bar.start()
            else:
                self.say(f"{title}.")
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, note=note)
        elif time.monotonic() - self._told >= TRAINING_PLAIN_SECONDS:
            self._told = time.monotonic()
            self.say(f"{title}: {done:,} of {total:,}{', ' if note else ''}{note}")

    def trained(self, step: int, steps: int, logs: Mapping[str, float]) -> None:
        """The trainer's own figures of the last steps."""
        shown = {"loss": "loss", "document_regularizer_loss": "regulariser"}
        note = ", ".join(f"{name} {logs[key]:.3g}" for key, name in shown.items() if key in logs)
        self.step("Training", step, steps, note)

    def evaluated(self, entry: Mapping[str, Any]) -> None:
        """One evaluation as a line."""
        found = ", ".join(
            f"{name} {one['sparse']:.3f} (BM25 {one['bm25']:.3f}, both {one['hybrid']:.3f})"
            for name, one in entry["collections"].items()
        )
        weights = [one["weights_a_document"] for one in entry["collections"].values()]
        self.say(
            f"Step {entry['step']:,}: NDCG@10 {entry['mean']:.4f}; {found}; "
            f"{sum(weights) / len(weights):.0f} weights a document."
        )


@contextmanager
def show_stages(console: Console) -> Iterator[StageProgress]:
    """A function that draws a bar for each stage it hears of."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console) as bars:
        tasks = {}

        def progress(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield progress
