"""Sources whose documents are files: a directory, or files given by name.

`walk_files` yields the files of a directory in a stable order, so that a load can be resumed, follows links without
circles, and counts the skipped files. `FileSource` is the base class of `TextSource` and `TalkSource`.
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
    """A file with its name (its path below the root, with slashes), or the reason why it cannot be read."""

    name: str
    path: Path
    fault: InvalidInput | None = None


def walk_files(root: Path, skipped: Counter[str], wanted: Callable[[Path], bool]) -> Iterator[FileEntry]:
    """Yield the `wanted` files below `root`, sorted by name within each directory. Count the others by reason.

    A link to a directory is followed, unless its target contains or is inside a directory that is read anyway; so no
    circle is possible. Raises OSError if the root cannot be listed.
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


def _is_new_directory(target: Path, known: list[Path]) -> bool:
    """Tell whether a link's target is outside of the known directories, and add it to them."""
    if any(target.is_relative_to(directory) or directory.is_relative_to(target) for directory in known):
        return False
    known.append(target)
    return True


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

    @abstractmethod
    def _entries(self, skipped: Counter[str]) -> Iterator[FileEntry]:
        """Yield the files that are documents, and count the others."""

    @abstractmethod
    def _document(self, entry: FileEntry, make: DocumentMaker) -> bytes | InvalidInput:
        """Return the JSON of a document, or the reason of its refusal."""
