"""What a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Show(Protocol):
    """Where progress goes: a console, a test's list, nowhere (`Silent`)."""

    def say(self, message: str) -> None:
        """A line that stays."""

    def step(self, title: str, done: int, total: int, note: str = "") -> None:
        """How far a stage is."""

    def trained(self, step: int, steps: int, logs: Mapping[str, float]) -> None:
        """The trainer's figures of the last steps."""

    def evaluated(self, entry: Mapping[str, Any]) -> None:
        """One entry of the learning curve."""


class Silent:
    """Shows nothing."""

    def say(self, message: str) -> None:
        pass

    def step(self, title: str, done: int, total: int, note: str = "") -> None:
        pass

    def trained(self, step: int, steps: int, logs: Mapping[str, float]) -> None:
        pass

    def evaluated(self, entry: Mapping[str, Any]) -> None:
        pass
