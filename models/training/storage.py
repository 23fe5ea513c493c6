"""Files of training: JSON lines as input, and arrays that take hours to compute.

`read_objects` reads JSON objects, one a line. A bad line is counted and shown in a `ReadReport`; it does not end the
run.

`load_or_make_rows` keeps arrays in a directory, block by block, so a killed run resumes after its last block. The
directory is complete or absent: until then, its blocks are in NAME.part. All files are .npy and .npz, never pickles.
`disk_failures` turns a full or unwritable disk into one line instead of a traceback.
"""

from __future__ import annotations

import codecs
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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

# Longest line in memory: eight times the API's default limit of a document.
MAX_LINE_BYTES = 8 * 1024**2
_MAX_EXAMPLES = 5
META_FILE = "meta.json"
_FORMAT = "sparsewell-rows/1"
NamedArrays = dict[str, NDArray[Any]]
# PyTorch and safetensors raise errors of writing in other classes than OSError. Their messages have these marks.
_WRITER_MARKS = ("PytorchStreamWriter", "inline_container", "Error while serializing: I/O error")
MakeRows = Callable[[int, int], Mapping[str, NDArray[Any]]]


@dataclass
class ReadReport:
    """Report on a file's lines. `refused` counts them by code; `examples` describes the first five."""

    name: str
    lines: int = 0  # without blank lines
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def refuse(self, line: int, error: InvalidInput) -> None:
        self.refused[error.code] += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"{self.name}, line {line}: {error.detail}")

    def as_json(self) -> dict[str, Any]:
        """Return file, lines, taken, refused by code and examples."""
        return {
            "file": self.name,
            "lines": self.lines,
            "taken": self.taken,
            "refused": dict(sorted(self.refused.items())),
            "examples": self.examples,
        }


def read_objects(path: Path, report: ReadReport) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Read line numbers from 1 and objects as a stream; .gz, .bz2, .xz and .zst are decompressed.

    Lines that are too long, not UTF-8, not JSON (NaN is not JSON) or not an object are refused in `report`. Raises
    ConfigurationError (`unreadable_file`), and InvalidInput (`damaged_file`) for a truncated or invalid archive.
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
    """Return a text member without surrounding white space; "" for an absent member that is not required.

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


def load_or_make_rows(
    directory: Path,
    rows: int,
    block: int,
    make: MakeRows,
    *,
    about: Mapping[str, str] | None = None,
    done: Callable[[int], object] = lambda rows: None,
) -> NamedArrays:
    """Return the arrays of `directory`, memory-mapped and read-only; make them first if they are absent.

    `make(start, end)` returns the arrays of these rows. Blocks of `block` rows are saved as they finish and joined
    along the first axis. The directory's name must identify its content: a directory with `rows` rows is used as it is.
    `about` is written beside the arrays for readers; `done` receives the number of finished rows.

    Raises ConfigurationError (`unwritable_directory`) when the disk is full or not writable.
    """
    arrays = _load_arrays(directory, rows)
    if arrays is None:
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            # the processes of a run on several devices need the same rows
            with FileLock(directory.with_name(f"{directory.name}.lock")):
                arrays = _load_arrays(directory, rows) or _make_rows(directory, rows, block, make, about or {}, done)
        except OSError as error:
            raise ConfigurationError(
                "unwritable_directory",
                f"Cannot write {error.filename or directory} ({error.strerror}). Make room or choose another "
                "directory; finished blocks stay and are not computed again.",
            ) from None
    done(rows)
    return arrays


def _make_rows(
    directory: Path, rows: int, block: int, make: MakeRows, about: Mapping[str, str], done: Callable[[int], object]
) -> NamedArrays:
    partial = directory.with_name(f"{directory.name}.part")
    partial.mkdir(exist_ok=True)
    blocks: list[Path] = []
    for start in range(0, max(rows, 1), block):
        end = min(start + block, rows)
        blocks.append(_make_block(partial / f"{start:012d}-{end:012d}.npz", start, end, make))
        done(end)
    _join_blocks(directory, partial, blocks, rows, about)
    arrays = _load_arrays(directory, rows)
    if arrays is None:
        raise ConfigurationError("unwritable_directory", f"{directory} changed while it was written; run it again.")
    return arrays


def _make_block(path: Path, start: int, end: int, make: MakeRows) -> Path:
    """Return the file of a block; make it unless it is complete."""
    if not _is_complete(path):
        scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with scratch.open("wb") as file:
            np.savez(file, **dict(make(start, end)))  # type: ignore[arg-type]  # savez has another keyword, a flag
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    return path


def _is_complete(path: Path) -> bool:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for name in archive.files:  # reading a member checks its checksum in the zip archive
                archive[name]
    except (OSError, ValueError, BadZipFile, EOFError, KeyError):
        return False
    return True


def _join_blocks(directory: Path, partial: Path, blocks: list[Path], rows: int, about: Mapping[str, str]) -> None:
    """Write a .npy file for each array, with one block in memory at a time; then rename the directory."""
    whole = partial / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    shapes: dict[str, list[tuple[int, ...]]] = {}
    kinds: dict[str, np.dtype[np.generic]] = {}
    for path in blocks:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                array = archive[name]
                shapes.setdefault(name, []).append(array.shape)
                kinds.setdefault(name, array.dtype)
    for name, block_shapes in shapes.items():
        shape = (sum(block_shape[0] for block_shape in block_shapes), *block_shapes[0][1:])
        if not shape[0] or 0 in shape:  # an empty array cannot be mapped
            np.save(whole / f"{name}.npy", np.empty(shape, kinds[name]), allow_pickle=False)
            continue
        target = np.lib.format.open_memmap(whole / f"{name}.npy", mode="w+", dtype=kinds[name], shape=shape)
        position = 0
        for path, block_shape in zip(blocks, block_shapes, strict=True):
            with np.load(path, allow_pickle=False) as archive:
                target[position : position + block_shape[0]] = archive[name]
            position += block_shape[0]
        target.flush()
        del target
    meta = {"format": _FORMAT, "rows": rows, "arrays": list(shapes), **about}
    (whole / META_FILE).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    whole.replace(directory)
    shutil.rmtree(partial, ignore_errors=True)


def _load_arrays(directory: Path, rows: int) -> NamedArrays | None:
    """Return the arrays, or None if they are absent, of another size, or truncated."""
    try:
        meta = json.loads((directory / META_FILE).read_bytes())
        if meta["format"] != _FORMAT or meta["rows"] != rows:
            return None
        arrays: NamedArrays = {}
        for name in meta["arrays"]:
            path = directory / f"{name}.npy"
            # an empty array cannot be mapped, and its file is shorter than a page
            mapped = path.stat().st_size > 4096
            arrays[name] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return arrays


@contextmanager
def disk_failures() -> Iterator[None]:
    """Turn errors of the disk into ConfigurationError (`unwritable_directory`)."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not of a system call: libraries raise OSError for files that they cannot parse
            raise
        raise _unwritable_directory(
            f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
        ) from None
    except Exception as error:  # the errors of safetensors and PyTorch have no common base class
        if any(mark in str(error) for mark in _WRITER_MARKS):
            raise _unwritable_directory(str(error).splitlines()[0]) from None
        raise


def _unwritable_directory(cause: str) -> ConfigurationError:
    return ConfigurationError(
        "unwritable_directory",
        f"A file cannot be written or read: {cause}. Free disk space or choose another directory, then repeat the "
        "command: finished files stay, and the run resumes from its last complete checkpoint.",
    )
