"""A directory or several files, each of which is a document: what is read, how far, and what is passed over."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cli.loading.source import Make, Place, Row
from cli.loading.walking import Entry
from services.errors import InvalidInput


class FileRows(ABC):
    """Lines count documents, each a file, maybe with others beside it."""

    def __init__(self, root: Path | None, files: Sequence[Path]) -> None:
        """Looks at every file's size and time of change. Raises OSError."""
        self._root = root
        self._files = files
        self.name = str(root or files[0])
        self._skipped: Counter[str] = Counter()
        self._read = 0
        content, self.size = hashlib.sha256(), 0
        for entry in self._entries(self._skipped):
            status = entry.path.lstat() if entry.fault else entry.path.stat()
            content.update(repr((entry.name, status.st_size, status.st_mtime_ns)).encode())
            self.size += status.st_size
            for path in self._beside(entry.path):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    content.update(repr((path.name, status.st_size, status.st_mtime_ns)).encode())
                    self.size += status.st_size
        self._identity = f"{(root or files[0]).resolve()} {content.hexdigest()}"

    def identity(self) -> str:
        return self._identity

    def columns(self) -> None:
        return None

    def read(self) -> int:
        return self._read

    def notes(self) -> list[str]:
        found = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self._skipped.items()))
        return [f"Passed over in {self.name}: {found}."] if found else []

    def rows(self, start: Place, make: Make) -> Iterator[Row]:
        self._read = start.offset
        for number, entry in enumerate(self._entries(Counter()), 1):
            if number <= start.line:
                continue
            for path in (entry.path, *self._beside(entry.path)):
                with suppress(OSError):  # what became of it is said by reading it
                    self._read += path.stat().st_size
            yield Row(number, entry.fault or self._document(entry, make), number, self._read, entry.name)

    def _beside(self, path: Path) -> Iterable[Path]:
        """Files that may be there and belong to the document of `path`."""
        return ()

    @abstractmethod
    def _entries(self, skipped: Counter[str]) -> Iterator[Entry]:
        """The files that are documents; counts those that are none."""

    @abstractmethod
    def _document(self, entry: Entry, make: Make) -> bytes | InvalidInput:
        """The JSON of a document, or why it is none."""
