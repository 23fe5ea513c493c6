"""From the arguments of the command to sources: which format, and whether it can be read at all."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from cli.loading.delimited import Delimited
from cli.loading.field_map import FieldMap
from cli.loading.formats import BY_SUFFIX, ROWS, TEXTS, Format, Kind, format_of
from cli.loading.jsonl import JsonLines
from cli.loading.parquet import Parquet
from cli.loading.source import Source
from cli.loading.talk_files import TYPES, TalkFiles
from cli.loading.text_files import TextFiles
from services.content import suffixes
from services.errors import ConfigurationError, InvalidInput


def open_sources(
    paths: Sequence[Path],
    given: Format | None,
    delimiter: str | None,
    field_map: FieldMap,
    kind: Kind | None = None,
) -> list[Source]:
    """The sources in the order of the arguments, their headers checked.

    Raises ConfigurationError (`unreadable_file`, `unknown_format`, `unknown_column`, `bad_delimiter`), of a single
    source InvalidInput too.
    """
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '\r\n"'):
        raise ConfigurationError("bad_delimiter", f"--delimiter {delimiter!r} is not one character.")
    if kind is Kind.talk and not all(_rows(path, given) for path in paths):
        if given or delimiter or field_map.given:
            raise ConfigurationError("bad_map", "--kind talk reads transcripts, which have no columns to map.")
        return _talks(paths)
    found: list[Source] = []
    # text files that follow each other are one source: a batch never holds lines of two
    for directory, held, group in _grouped(paths, given):
        try:
            found += _opened(directory, held, group, given, delimiter, field_map)
        except OSError as error:
            name = error.filename or group[0]
            raise ConfigurationError("unreadable_file", f"{name} cannot be read: {error.strerror}.") from None
    _require_one_directory(paths)
    _check_columns(found, field_map)
    return found


def _rows(path: Path, given: Format | None) -> bool:
    """Whether a file has a document in each row, which says itself what is talk."""
    if path.is_dir():
        return False
    suffix = suffixes(path)[0]
    return (given or (None if suffix in TYPES else BY_SUFFIX.get(suffix))) in ROWS


def _talks(paths: Sequence[Path]) -> list[Source]:
    found: list[Source] = []
    try:
        for directory, group in groupby(paths, Path.is_dir):
            files = list(group)
            for path in () if directory else files:
                path.open("rb").close()
            found += [TalkFiles(path) for path in files] if directory else [TalkFiles(None, files)]
    except OSError as error:
        name = error.filename or paths[0]
        raise ConfigurationError("unreadable_file", f"{name} cannot be read: {error.strerror}.") from None
    _require_one_directory(paths)
    return found


def _require_one_directory(paths: Sequence[Path]) -> None:
    if sum(path.is_dir() for path in paths) > 1:
        raise ConfigurationError("two_directories", "Load one directory at a time: ids are paths below it.")


def _grouped(paths: Sequence[Path], given: Format | None) -> Iterator[tuple[bool, Format | None, list[Path]]]:
    """Runs of arguments that are read alike: whether it is a directory, the format, the paths."""

    def kind(path: Path) -> tuple[bool, Format | None]:
        if path.is_dir():
            return True, None
        found = given or format_of(path)
        return False, Format.text if found in TEXTS else found

    for (directory, one), group in groupby(paths, kind):
        yield directory, one, list(group)


def _opened(
    directory: bool,
    kind: Format | None,
    group: list[Path],
    given: Format | None,
    delimiter: str | None,
    field_map: FieldMap,
) -> list[Source]:
    if directory:
        return [TextFiles(path) for path in group]
    for path in group:
        if not path.is_file() and path.exists():  # opening a pipe would take what is in it
            raise ConfigurationError("unreadable_file", f"{path} is no file that can be read a second time.")
        path.open("rb").close()
    match kind:
        case Format.jsonl:
            return [JsonLines(path, mapped=field_map.given) for path in group]
        case Format.csv | Format.tsv:
            between = delimiter or ("," if kind is Format.csv else "\t")
            return [Delimited(path, between) for path in group]
        case Format.parquet:
            return [Parquet(path) for path in group]
        case _:
            return [TextFiles(None, group, given)]


def _check_columns(sources: Sequence[Source], field_map: FieldMap) -> None:
    # a bad one of several is refused by name when its turn comes
    for source in sources:
        try:
            columns = source.columns()
        except InvalidInput:
            if len(sources) == 1:
                raise
            continue
        if columns is not None:
            field_map.require(columns, source.name)
