"""The files of a directory, in an order that does not change."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from services.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Entry:
    """A file by its name (below the root, with slashes), or why there is none."""

    name: str
    path: Path
    fault: InvalidInput | None = None


def walk(root: Path, skipped: Counter[str], wanted: Callable[[Path], bool]) -> Iterator[Entry]:
    """Files that are `wanted` below `root`, sorted by name within each directory; the others are counted by reason.

    A link to a directory is followed once, and not at all where it leads into what is walked anyway or around it:
    then there is no circle. Raises OSError when the root cannot be listed.
    """
    known = [root.resolve()]
    stack: list[tuple[str, Iterator[os.DirEntry[str]]]] = [("", iter(_listed(root)))]
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
                if entry.is_symlink() and not _new(path.resolve(), known):
                    skipped["links to directories that are read anyway"] += 1
                    continue
                stack.append((f"{name}/", iter(_listed(path))))
            elif not entry.is_file():
                skipped["broken links and what is no file"] += 1
            elif wanted(path):
                yield Entry(*_named(name, path))
            else:
                skipped["of other kinds"] += 1
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "links in a circle"
            yield Entry(shown(name), path, InvalidInput("unreadable_file", f"It cannot be read: {reason}."))


def _listed(path: Path) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _new(real: Path, known: list[Path]) -> bool:
    if any(real.is_relative_to(one) or one.is_relative_to(real) for one in known):
        return False
    known.append(real)
    return True


def shown(name: str) -> str:
    """A name of any bytes, for people and for JSON."""
    return name.encode(errors="backslashreplace").decode()


def _named(name: str, path: Path) -> tuple[str, Path, InvalidInput | None]:
    if shown(name) == name:
        return name, path, None
    return shown(name), path, InvalidInput("not_utf8", "Its name is not UTF-8, so it cannot be an id: rename it.")
