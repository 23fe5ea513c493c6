"""The sources of a load's arguments: files by format, a directory, transcripts, or standard input.

`open_sources` checks the arguments before anything is sent. `save_standard_input` copies standard input to a file, so
that its load has a size, a position and an identity as a load of a file has.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cli.loading.source import (
    FORMATS_BY_SUFFIX,
    ROW_FORMATS,
    TEXT_FORMATS,
    DocumentKind,
    FileFormat,
    LoadSource,
    detect_format,
)
from services.documents.compressed_lines import split_suffixes
from services.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from cli.loading.field_map import FieldMap

STANDARD_INPUT = Path("-")


@contextmanager
def save_standard_input(
    paths: Sequence[Path], format_option: FileFormat | None, directory: Path, stream: BinaryIO | None = None
) -> Iterator[list[Path]]:
    """Yield the paths, with a copy of standard input in place of `-`. The copy is deleted at the end.

    The name of the copy is the hash of its content, and its time is fixed. So the same content is the same load, and
    the repeated command resumes it. Raises ConfigurationError (`bad_input`).
    """
    if STANDARD_INPUT not in paths:
        yield list(paths)
        return
    file_format = format_option or FileFormat.jsonl
    if paths.count(STANDARD_INPUT) > 1 or file_format not in ROW_FORMATS:
        formats = ", ".join(ROW_FORMATS)
        raise ConfigurationError("bad_input", f"`-` is one source of rows: give it once, with --format {formats}.")
    descriptor, scratch = tempfile.mkstemp(dir=directory, prefix="stdin-", suffix=".part")  # readable by its owner only
    copy = Path(scratch)
    try:
        with os.fdopen(descriptor, "wb") as out:
            shutil.copyfileobj(stream or sys.stdin.buffer, out)
        with copy.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        named = copy.with_name(f"stdin-{digest[:32]}.{file_format}")
        copy = copy.replace(named)
        os.utime(copy, (0, 0))
        yield [copy if path == STANDARD_INPUT else path for path in paths]
    finally:
        copy.unlink(missing_ok=True)


def open_sources(
    paths: Sequence[Path],
    format_option: FileFormat | None,
    delimiter: str | None,
    field_map: "FieldMap",
    kind: DocumentKind | None = None,
) -> list[LoadSource]:
    """Open the sources in the order of the arguments and check their headers.

    Raises ConfigurationError (`unreadable_file`, `unknown_format`, `unknown_column`, `bad_delimiter`, `bad_map`,
    `two_directories`), and InvalidInput if a single source has a bad header.
    """
    for path in paths:
        _require_existing(path)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '\r\n"'):
        raise ConfigurationError("bad_delimiter", f"--delimiter {delimiter!r} is not one character.")
    if kind is DocumentKind.talk and not all(_has_rows(path, format_option) for path in paths):
        if format_option or delimiter or field_map.is_given:
            raise ConfigurationError("bad_map", "--kind talk reads transcripts, which have no columns to map.")
        return _open_talks(paths)
    sources: list[LoadSource] = []
    # Neighbouring text files are one source, so that they share batches.
    for directory, file_format, group in _group_arguments(paths, format_option):
        try:
            sources += _open_group(directory, file_format, group, format_option, delimiter, field_map)
        except OSError as error:
            name = error.filename or group[0]
            raise ConfigurationError("unreadable_file", f"{name} cannot be read: {error.strerror}.") from None
    _require_one_directory(paths)
    _check_columns(sources, field_map)
    return sources


def _require_existing(path: Path) -> None:
    """Raise ConfigurationError (`unreadable_file`) for a path that names nothing.

    Otherwise a missing directory would be a file without a known suffix.
    """
    if not os.path.lexists(path):
        raise ConfigurationError("unreadable_file", f"{path} does not exist: no file or directory has this name.")


def _has_rows(path: Path, format_option: FileFormat | None) -> bool:
    """Tell whether each row of a file is a document. Such a row has its own `kind`."""
    from cli.loading.text_files import TRANSCRIPT_MEDIA_TYPES

    if path.is_dir():
        return False
    suffix = split_suffixes(path)[0]
    by_suffix = None if suffix in TRANSCRIPT_MEDIA_TYPES else FORMATS_BY_SUFFIX.get(suffix)
    return (format_option or by_suffix) in ROW_FORMATS


def _open_talks(paths: Sequence[Path]) -> list[LoadSource]:
    from cli.loading.text_files import TalkSource

    sources: list[LoadSource] = []
    try:
        for directory, group in groupby(paths, Path.is_dir):
            files = list(group)
            for path in () if directory else files:
                path.open("rb").close()
            sources += [TalkSource(path) for path in files] if directory else [TalkSource(None, files)]
    except OSError as error:
        name = error.filename or paths[0]
        raise ConfigurationError("unreadable_file", f"{name} cannot be read: {error.strerror}.") from None
    _require_one_directory(paths)
    return sources


def _require_one_directory(paths: Sequence[Path]) -> None:
    if sum(path.is_dir() for path in paths) > 1:
        raise ConfigurationError("two_directories", "Load one directory at a time: ids are paths below it.")


def _group_arguments(
    paths: Sequence[Path], format_option: FileFormat | None
) -> Iterator[tuple[bool, FileFormat | None, list[Path]]]:
    """Yield runs of arguments with the same reader: whether they are directories, the format, the paths."""

    def reader(path: Path) -> tuple[bool, FileFormat | None]:
        if path.is_dir():
            return True, None
        file_format = format_option or detect_format(path)
        return False, FileFormat.text if file_format in TEXT_FORMATS else file_format

    for (directory, file_format), group in groupby(paths, reader):
        yield directory, file_format, list(group)


def _open_group(
    directory: bool,
    file_format: FileFormat | None,
    group: list[Path],
    format_option: FileFormat | None,
    delimiter: str | None,
    field_map: "FieldMap",
) -> list[LoadSource]:
    from cli.loading.tabular import DelimitedSource, JsonLinesSource, ParquetSource
    from cli.loading.text_files import TextSource

    if directory:
        return [TextSource(path) for path in group]
    for path in group:
        if not path.is_file() and path.exists():  # opening a pipe would consume its content
            raise ConfigurationError("unreadable_file", f"{path} is not a regular file, so a load cannot be resumed.")
        path.open("rb").close()
    match file_format:
        case FileFormat.jsonl:
            return [JsonLinesSource(path, mapped=field_map.is_given) for path in group]
        case FileFormat.csv | FileFormat.tsv:
            separator = delimiter or ("," if file_format is FileFormat.csv else "\t")
            return [DelimitedSource(path, separator) for path in group]
        case FileFormat.parquet:
            return [ParquetSource(path) for path in group]
        case _:
            return [TextSource(None, group, format_option)]


def _check_columns(sources: Sequence[LoadSource], field_map: "FieldMap") -> None:
    # One bad header of several does not stop the load: the file is refused when it is read.
    for source in sources:
        try:
            columns = source.columns()
        except InvalidInput:
            if len(sources) == 1:
                raise
            continue
        if columns is not None:
            field_map.require(columns, source.name)
