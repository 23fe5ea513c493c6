"""Pair files: {"query": ..., "passage": ...} a line, read as a stream and written whole or not at all."""

import gzip
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, cast

import orjson

from models.training.json_lines import ReadReport, read_objects, text_of
from models.training.pairs import Pair, PairSet
from services.content import suffixes
from services.errors import InvalidInput


def read_pairs(path: Path, report: ReadReport | None = None, origin: str | None = None) -> Iterator[Pair]:
    """The pairs of a file (.jsonl, also packed as .gz, .bz2, .xz, .zst), as a stream.

    A line may name its `origin`; without one it is `origin`, or else the file's name. Bad lines are counted in
    `report` and skipped. Raises ConfigurationError (`unreadable_file`), InvalidInput: `damaged_file`, and `no_pairs`
    when no line is one.
    """
    report = ReadReport(str(path)) if report is None else report
    default = set_name(path) if origin is None else origin
    for number, record in read_objects(path, report):
        try:
            pair = Pair(
                text_of(record, "query"),
                text_of(record, "passage"),
                text_of(record, "origin", required=False) or default,
            )
        except InvalidInput as error:
            report.refuse(number, error)
        else:
            report.taken += 1
            yield pair
    if not report.taken:
        raise InvalidInput(
            "no_pairs",
            f'{path} has no pairs: each line is {{"query": "...", "passage": "..."}}. '
            + (f"The first lines: {'; '.join(report.examples)}." if report.examples else "The file is empty."),
        )


def read_pair_set(path: Path, origin: str | None = None) -> tuple[PairSet, ReadReport]:
    """A whole file. Raises as `read_pairs`."""
    report = ReadReport(str(path))
    return PairSet.of(read_pairs(path, report, origin)), report


def write_pairs(path: Path, pairs: Iterable[Pair]) -> int:
    """Writes a file that `read_pairs` reads, origins included, packed when it ends in .gz; returns how many."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        # (no time and no name in the archive: the same pairs are the same bytes)
        with scratch.open("wb") as raw, _packed(raw, path) as file:
            for pair in pairs:
                line = {"query": pair.query, "passage": pair.passage, "origin": pair.origin}
                file.write(orjson.dumps({name: text for name, text in line.items() if text}) + b"\n")
                count += 1
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return count


def set_name(path: Path) -> str:
    """The file's name without what tells its format."""
    return path.name.removesuffix(suffixes(path)[1]).removesuffix(suffixes(path)[0]) or path.name


def _packed(raw: BinaryIO, path: Path) -> AbstractContextManager[BinaryIO]:
    if path.suffix != ".gz":
        return nullcontext(raw)
    return cast(AbstractContextManager[BinaryIO], gzip.GzipFile("", "wb", 6, raw, mtime=0))
