"""A directory or several files, each of which is a document: what is read, how far, and what is passed over.

The files of a directory, in an order that does not change.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cli.loading.source import DocumentMaker, SourcePosition, SourceRow
from services.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file by its name (below the root, with slashes), or why there is none."""

    name: str
    path: Path
    fault: InvalidInput | None = None


def walk_files(root: Path, skipped: Counter[str], wanted: Callable[[Path], bool]) -> Iterator[FileEntry]:
    """Files that are `wanted` below `root`, sorted by name within each directory; the others are counted by reason.

    A link to a directory is followed once, and not at all where it leads into what is walked anyway or around it:
    then there is no circle. Raises OSError when the root cannot be listed.
    """
    known = [root.resolve()]
    stack: list[tuple[str, Iterator[os.DirEntry[str]]]] = [("", iter(_list_directory(root)))]
    while stack:
        prefix, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        name, path = prefix + entry.name, Path(entry.path)
        if entry.name.startswith("."):
            skipped["hidden"] += 1
            continue
        try:
            if entry.is_dir():
                if entry.is_symlink() and not _is_new_directory(path.resolve(), known):
                    skipped["links to directories that are read anyway"] += 1
                    continue
                stack.append((f"{name}/", iter(_list_directory(path))))
            elif not entry.is_file():
                skipped["broken links and what is no file"] += 1
            elif wanted(path):
                yield FileEntry(*_name_entry(name, path))
            else:
                skipped["of other kinds"] += 1
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "links in a circle"
            yield FileEntry(
                printable_name(name), path, InvalidInput("unreadable_file", f"It cannot be read: {reason}.")
            )


def _list_directory(path: Path) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_new_directory(real: Path, known: list[Path]) -> bool:
    if any(real.is_relative_to(one) or one.is_relative_to(real) for one in known):
        return False
    known.append(real)
    return True


def printable_name(name: str) -> str:
    """A name of any bytes, for people and for JSON."""
    return name.encode(errors="backslashreplace").decode()


def _name_entry(name: str, path: Path) -> tuple[str, Path, InvalidInput | None]:
    if printable_name(name) == name:
        return name, path, None
    return (
        printable_name(name),
        path,
        InvalidInput("not_utf8", "Its name is not UTF-8, so it cannot be an id: rename it."),
    )


class FileSource(ABC):
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

    def rows(self, start: SourcePosition, make: DocumentMaker) -> Iterator[SourceRow]:
        self._read = start.offset
        for number, entry in enumerate(self._entries(Counter()), 1):
            if number <= start.line:
                continue
            for path in (entry.path, *self._beside(entry.path)):
                with suppress(OSError):  # what became of it is said by reading it
                    self._read += path.stat().st_size
            yield SourceRow(number, entry.fault or self._document(entry, make), number, self._read, entry.name)

    def _beside(self, path: Path) -> Iterable[Path]:
        """Files that may be there and belong to the document of `path`."""
        return ()

    @abstractmethod
    def _entries(self, skipped: Counter[str]) -> Iterator[FileEntry]:
        """The files that are documents; counts those that are none."""

    @abstractmethod
    def _document(self, entry: FileEntry, make: DocumentMaker) -> bytes | InvalidInput:
        """The JSON of a document, or why it is none."""
