"""Sources whose documents are files: a directory, or files given by name.

`walk_files` yields the files of a directory in a stable order, so that a load can be resumed, follows no link out of
the directory, and counts the skipped files. `FileSource` is the base class of `TextSource` and `TalkSource`.
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

_INNER_LINKS = "links to directories that are read anyway"
_OUTER_LINKS = "links out of the directory or to hidden files"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file with its name (its path below the root, with slashes), or the reason why it cannot be read."""

    name: str
    path: Path
    fault: InvalidInput | None = None


def walk_files(root: Path, skipped: Counter[str], wanted: Callable[[Path], bool]) -> Iterator[FileEntry]:
    """Yield the `wanted` files below `root`, sorted by name within each directory. Count the others by reason.

    A link is followed only to a file inside the root that is not hidden: a foreign repository may have a link
    to /etc/passwd. A directory inside the root is read without links, so no circle is possible. Raises OSError if the
    root cannot be listed.
    """
    resolved = root.resolve()
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
            if entry.is_symlink() and (entry.is_dir() or entry.is_file()):
                inside = is_inside(resolved, path)
                if not inside or entry.is_dir():
                    skipped[_INNER_LINKS if inside else _OUTER_LINKS] += 1
                    continue
            if entry.is_dir():
                stack.append((f"{name}/", iter(_list_directory(path))))
            elif not entry.is_file():
                skipped["broken links and special files"] += 1
            elif wanted(path):
                yield FileEntry(*_name_entry(name, path))
            else:
                skipped["of other formats"] += 1
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "links in a circle"
            fault = InvalidInput("unreadable_file", f"The file cannot be read: {reason}.")
            yield FileEntry(printable_name(name), path, fault)


def _list_directory(path: Path) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def is_inside(root: Path, path: Path) -> bool:
    """Tell whether a path leads to a place below the resolved `root` that is not hidden, after all links."""
    target = path.resolve()
    return target.is_relative_to(root) and not any(part.startswith(".") for part in target.relative_to(root).parts)


def printable_name(name: str) -> str:
    """Escape the bytes of a file name that are not UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def _name_entry(name: str, path: Path) -> tuple[str, Path, InvalidInput | None]:
    if printable_name(name) == name:
        return name, path, None
    fault = InvalidInput("not_utf8", "The file name is not UTF-8, so it cannot be an id: rename the file.")
    return printable_name(name), path, fault


class FileSource(ABC):
    """A source whose documents are files, each with optional companion files. Line numbers count documents."""

    def __init__(self, root: Path | None, files: Sequence[Path]) -> None:
        """Read size and modification time of every file. Raises OSError."""
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
            for path in self._companions(entry.path):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    content.update(repr((path.name, status.st_size, status.st_mtime_ns)).encode())
                    self.size += status.st_size
        self._identity = f"{(root or files[0]).resolve()} {content.hexdigest()}"

    def identity(self) -> str:
        """Return a text that changes with the name, size or modification time of a file."""
        return self._identity

    @property
    def is_directory(self) -> bool:
        """Tell whether the files are all files of a directory."""
        return self._root is not None

    def list_ids(self) -> tuple[set[str], list[str]]:
        """Return the ids of all documents, and the names of the entries that cannot be read, maybe directories."""
        entries = list(self._entries(Counter()))
        return {self._id(entry) for entry in entries}, [entry.name for entry in entries if entry.fault]

    def columns(self) -> None:
        """Return None: each document has its own columns."""
        return None

    def read(self) -> int:
        """Return the number of bytes that were read so far."""
        return self._read

    def notes(self) -> list[str]:
        """Return a message about the skipped files."""
        skipped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self._skipped.items()))
        return [f"Skipped in {self.name}: {skipped}."] if skipped else []

    def rows(self, start: SourcePosition, make: DocumentMaker) -> Iterator[SourceRow]:
        """Yield a row for each document after `start`."""
        self._read = start.offset
        for number, entry in enumerate(self._entries(Counter()), 1):
            if number <= start.line:
                continue
            for path in (entry.path, *self._companions(entry.path)):
                with suppress(OSError):  # reading the file reports the error
                    self._read += path.stat().st_size
            yield SourceRow(number, entry.fault or self._document(entry, make), number, self._read, entry.name)

    def _companions(self, path: Path) -> Iterable[Path]:
        """Return files that may exist and belong to the document of `path`."""
        return ()

    def _id(self, entry: FileEntry) -> str:
        """Return the id of a file's document."""
        return entry.name

    @abstractmethod
    def _entries(self, skipped: Counter[str]) -> Iterator[FileEntry]:
        """Yield the files that are documents, and count the others."""

    @abstractmethod
    def _document(self, entry: FileEntry, make: DocumentMaker) -> bytes | InvalidInput:
        """Return the JSON of a document, or the reason of its refusal."""
