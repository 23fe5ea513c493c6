"""What every display of progress is made of: lines that stay, and at most one bar."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress


class OneBar:
    """A console with at most one bar, which ends with the block that shows it."""

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
        """A line that stays."""
        (self._bar.console if self._bar else self._console).print(
            message, markup=False, highlight=False, soft_wrap=True
        )

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
