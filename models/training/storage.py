"""Arrays that take hours to compute, kept in a directory block by block: a killed run goes on where it ended.

A directory of a given name is whole or not there; while it is being made, its blocks lie in NAME.part. Everything is
.npy and .npz, never a pickle.

JSON objects, one a line, from files that training reads: a bad line is counted and shown, it ends nothing.
"""

from __future__ import annotations

import codecs
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import orjson
from filelock import FileLock
from numpy.typing import NDArray

from services.documents.compressed_lines import open_content, read_lines
from services.errors import ConfigurationError, InvalidInput

# No line is held in memory beyond this: eight times what the API takes of one document by default.
MAX_LINE_BYTES = 8 * 1024**2
_MAX_EXAMPLES = 5


@dataclass
class ReadReport:
    """What became of a file's lines. `refused` counts them by code, `examples` shows the first few in words."""

    name: str
    lines: int = 0  # blank ones left out
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def refuse(self, line: int, error: InvalidInput) -> None:
        self.refused[error.code] += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"{self.name}, line {line}: {error.detail}")

    def as_json(self) -> dict[str, Any]:
        """For reports: file, lines, taken, refused by code, examples."""
        return {
            "file": self.name,
            "lines": self.lines,
            "taken": self.taken,
            "refused": dict(sorted(self.refused.items())),
            "examples": self.examples,
        }


def read_objects(path: Path, report: ReadReport) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line numbers from 1 and the objects, as a stream; .gz, .bz2, .xz and .zst are unpacked on the way.

    Lines that are too long, not UTF-8, not JSON (NaN is none) or no object are refused in `report`. Raises
    ConfigurationError (`unreadable_file`) and, for an archive that is cut or no archive, InvalidInput (`damaged_file`).
    """
    with open_content(path) as content:
        for number, line, _ in read_lines(content, 0, 0, MAX_LINE_BYTES):
            text = line if line is None else (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
            if text == b"":
                continue
            report.lines += 1
            try:
                value = _parse_object(text)
            except InvalidInput as error:
                report.refuse(number, error)
            else:
                yield number, value


def _parse_object(line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise InvalidInput("line_too_long", f"it has more than {MAX_LINE_BYTES:,} bytes")
    try:
        line.decode()
        value = orjson.loads(line)
    except UnicodeDecodeError:
        raise InvalidInput("not_utf8", "it is not UTF-8") from None
    except orjson.JSONDecodeError as error:
        raise InvalidInput("not_json", f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput("not_an_object", "it is not a JSON object")
    return value


def read_text_member(record: Mapping[str, Any], name: str, *, required: bool = True) -> str:
    """A member that is a text, without the white space around it; "" for an absent one that is not required.

    Raises InvalidInput: `missing_member`, `wrong_type`, `empty_text`.
    """
    value = record.get(name)
    if value is None:
        if not required:
            return ""
        raise InvalidInput("missing_member", f"it has no `{name}`")
    if not isinstance(value, str):
        raise InvalidInput("wrong_type", f"`{name}` is {type(value).__name__}, not a string")
    text = value.strip()
    if required and not text:
        raise InvalidInput("empty_text", f"`{name}` is empty")
    return text


NamedArrays = dict[str, NDArray[Any]]
MakeRows = Callable[[int, int], Mapping[str, NDArray[Any]]]
META_FILE = "meta.json"
_FORMAT = "sparsewell-rows/1"


def load_or_make_rows(
    directory: Path,
    rows: int,
    block: int,
    make: MakeRows,
    *,
    about: Mapping[str, str] | None = None,
    done: Callable[[int], object] = lambda rows: None,
) -> NamedArrays:
    """The arrays of `directory`, memory-mapped, read only; made first where they are not there yet.

    `make(start, end)` gives the arrays of these rows, which are joined along their first axis in the order of rows;
    blocks of `block` rows are saved as they are finished. The directory's name must say what it holds: it is taken as
    it is whenever it has as many rows. `about` is written beside the arrays for people; `done` hears how many rows
    are there.

    Raises ConfigurationError (`unwritable_directory`) when a disk is full or closed to us.
    """
    found = _load_arrays(directory, rows)
    if found is None:
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            # (the processes of a run on several devices all want the same rows)
            with FileLock(directory.with_name(f"{directory.name}.lock")):
                found = _load_arrays(directory, rows) or _make_rows(directory, rows, block, make, about or {}, done)
        except OSError as error:
            raise ConfigurationError(
                "unwritable_directory",
                f"Cannot write {error.filename or directory} ({error.strerror}). Make room or choose another "
                "directory; what is finished stays and is not computed again.",
            ) from None
    done(rows)
    return found


def _make_rows(
    directory: Path, rows: int, block: int, make: MakeRows, about: Mapping[str, str], done: Callable[[int], object]
) -> NamedArrays:
    part = directory.with_name(f"{directory.name}.part")
    part.mkdir(exist_ok=True)
    blocks: list[Path] = []
    for start in range(0, max(rows, 1), block):
        end = min(start + block, rows)
        blocks.append(_make_block(part / f"{start:012d}-{end:012d}.npz", start, end, make))
        done(end)
    _join_blocks(directory, part, blocks, rows, about)
    found = _load_arrays(directory, rows)
    if found is None:
        raise ConfigurationError("unwritable_directory", f"{directory} changed while it was written; run it again.")
    return found


def _make_block(path: Path, start: int, end: int, make: MakeRows) -> Path:
    """The file of a block, made unless it is there and whole."""
    if not _is_complete(path):
        scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with scratch.open("wb") as file:
            np.savez(file, **dict(make(start, end)))  # type: ignore[arg-type]  # (its other keyword is a flag)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    return path


def _is_complete(path: Path) -> bool:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            for name in held.files:  # reads every member: a zip archive has a checksum of each
                held[name]
    except (OSError, ValueError, BadZipFile, EOFError, KeyError):
        return False
    return True


def _join_blocks(directory: Path, part: Path, blocks: list[Path], rows: int, about: Mapping[str, str]) -> None:
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
    (whole / META_FILE).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    whole.replace(directory)
    shutil.rmtree(part, ignore_errors=True)


def _load_arrays(directory: Path, rows: int) -> NamedArrays | None:
    """The arrays, or None for what is not there, of another size, or cut short."""
    try:
        meta = json.loads((directory / META_FILE).read_bytes())
        if meta["format"] != _FORMAT or meta["rows"] != rows:
            return None
        found: NamedArrays = {}
        for name in meta["arrays"]:
            path = directory / f"{name}.npy"
            # (an empty array cannot be mapped, and its file is shorter than a page)
            mapped = path.stat().st_size > 4096
            found[name] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found
