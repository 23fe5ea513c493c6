"""Progress of a fit or a training run: its receivers, and the seconds of its stages."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol


class ProgressReporter(Protocol):
    """Receiver of progress: a console, the list of a test, or nothing (`SilentReporter`)."""

    def report(self, message: str) -> None:
        """Show a line that stays."""

    def step(self, title: str, done: int, total: int, note: str = "") -> None:
        """Show the progress of a stage."""

    def trained(self, step: int, steps: int, logs: Mapping[str, float]) -> None:
        """Show the trainer's figures of the last steps."""

    def evaluated(self, entry: Mapping[str, Any]) -> None:
        """Show an entry of the learning curve."""


class SilentReporter:
    """Reporter that shows nothing."""

    def report(self, message: str) -> None:
        pass

    def step(self, title: str, done: int, total: int, note: str = "") -> None:
        pass

    def trained(self, step: int, steps: int, logs: Mapping[str, float]) -> None:
        pass

    def evaluated(self, entry: Mapping[str, Any]) -> None:
        pass


class StageTimer:
    """Seconds of each stage. As text: "pairs 2 s, training 310 s"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)

    def __str__(self) -> str:
        return ", ".join(f"{stage} {seconds:,.0f} s" for stage, seconds in self.seconds.items())
