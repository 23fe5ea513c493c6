"""The base of progress displays: permanent lines and at most one bar."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress


class OneBar:
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
