"""Progress of a run: a bar with the last loss on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cli.one_bar import OneBar

PLAIN_SECONDS = 10.0


class TrainingConsole(OneBar):
    """What a run says while it works; see `models.training.show.Show`."""

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
        elif time.monotonic() - self._told >= PLAIN_SECONDS:
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
