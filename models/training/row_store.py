"""Arrays that take hours to compute, kept in a directory block by block: a killed run goes on where it ended.

A directory of a given name is whole or not there; while it is being made, its blocks lie in NAME.part. Everything is
.npy and .npz, never a pickle.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from services.errors import ConfigurationError

Arrays = dict[str, NDArray[Any]]
Make = Callable[[int, int], Mapping[str, NDArray[Any]]]
META = "meta.json"
_FORMAT = "sparsewell-rows/1"


def stored_rows(
    directory: Path,
    rows: int,
    block: int,
    make: Make,
    *,
    about: Mapping[str, str] | None = None,
    done: Callable[[int], object] = lambda rows: None,
) -> Arrays:
    """The arrays of `directory`, memory-mapped, read only; made first where they are not there yet.

    `make(start, end)` gives the arrays of these rows, which are joined along their first axis in the order of rows;
    blocks of `block` rows are saved as they are finished. The directory's name must say what it holds: it is taken as
    it is whenever it has as many rows. `about` is written beside the arrays for people; `done` hears how many rows
    are there.

    Raises ConfigurationError (`unwritable_directory`) when a disk is full or closed to us.
    """
    found = _load(directory, rows)
    if found is None:
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            # (the processes of a run on several devices all want the same rows)
            with FileLock(directory.with_name(f"{directory.name}.lock")):
                found = _load(directory, rows) or _made(directory, rows, block, make, about or {}, done)
        except OSError as error:
            raise ConfigurationError(
                "unwritable_directory",
                f"Cannot write {error.filename or directory} ({error.strerror}). Make room or choose another "
                "directory; what is finished stays and is not computed again.",
            ) from None
    done(rows)
    return found


def _made(
    directory: Path, rows: int, block: int, make: Make, about: Mapping[str, str], done: Callable[[int], object]
) -> Arrays:
    part = directory.with_name(f"{directory.name}.part")
    part.mkdir(exist_ok=True)
    blocks: list[Path] = []
    for start in range(0, max(rows, 1), block):
        end = min(start + block, rows)
        blocks.append(_block(part / f"{start:012d}-{end:012d}.npz", start, end, make))
        done(end)
    _join(directory, part, blocks, rows, about)
    found = _load(directory, rows)
    if found is None:
        raise ConfigurationError("unwritable_directory", f"{directory} changed while it was written; run it again.")
    return found


def _block(path: Path, start: int, end: int, make: Make) -> Path:
    """The file of a block, made unless it is there and whole."""
    if not _whole(path):
        scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with scratch.open("wb") as file:
            np.savez(file, **dict(make(start, end)))  # type: ignore[arg-type]  # (its other keyword is a flag)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    return path


def _whole(path: Path) -> bool:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            for name in held.files:  # reads every member: a zip archive has a checksum of each
                held[name]
    except (OSError, ValueError, BadZipFile, EOFError, KeyError):
        return False
    return True


def _join(directory: Path, part: Path, blocks: list[Path], rows: int, about: Mapping[str, str]) -> None:
    """Writes one .npy an array, without holding more than a block; then the directory gets its name."""
    whole = part / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    shapes: dict[str, list[tuple[int, ...]]] = {}
    kinds: dict[str, np.dtype[np.generic]] = {}
    for path in blocks:
        with np.load(path, allow_pickle=False) as held:
            for name in held.files:
                array = held[name]
                shapes.setdefault(name, []).append(array.shape)
                kinds.setdefault(name, array.dtype)
    for name, parts in shapes.items():
        shape = (sum(one[0] for one in parts), *parts[0][1:])
        if not shape[0] or 0 in shape:  # (nothing to map)
            np.save(whole / f"{name}.npy", np.empty(shape, kinds[name]), allow_pickle=False)
            continue
        target = np.lib.format.open_memmap(whole / f"{name}.npy", mode="w+", dtype=kinds[name], shape=shape)
        place = 0
        for path, one in zip(blocks, parts, strict=True):
            with np.load(path, allow_pickle=False) as held:
                target[place : place + one[0]] = held[name]
            place += one[0]
        target.flush()
        del target
    meta = {"format": _FORMAT, "rows": rows, "arrays": list(shapes), **about}
    (whole / META).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    whole.replace(directory)
    shutil.rmtree(part, ignore_errors=True)


def _load(directory: Path, rows: int) -> Arrays | None:
    """The arrays, or None for what is not there, of another size, or cut short."""
    try:
        meta = json.loads((directory / META).read_bytes())
        if meta["format"] != _FORMAT or meta["rows"] != rows:
            return None
        found: Arrays = {}
        for name in meta["arrays"]:
            path = directory / f"{name}.npy"
            # (an empty array cannot be mapped, and its file is shorter than a page)
            mapped = path.stat().st_size > 4096
            found[name] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found
