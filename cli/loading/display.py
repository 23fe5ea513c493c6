"""Progress for people: a bar on a terminal, a line now and then anywhere else."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from cli.one_bar import OneBar

PLAIN_SECONDS = 5.0


class Display(OneBar):
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
