"""`sparsewell load`: load files of documents into an index. A stopped load can be resumed.

The command checks its options, opens the sources of its arguments by format (`open_sources`), sends all batches,
waits until the documents are encoded, and prints the refused ones.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.loading.source import (
    FORMATS_BY_SUFFIX,
    ROW_FORMATS,
    TEXT_FORMATS,
    DocumentKind,
    FileFormat,
    LoadSource,
    detect_format,
)
from cli.terminal import ApiOption, RetrySecondsOption, sanitise_line
from services.documents.compressed_lines import split_suffixes
from services.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from cli.loading.checkpoint import LoadCheckpoint
    from cli.loading.destinations import ApiDestination
    from cli.loading.field_map import FieldMap
    from cli.terminal import LoadDisplay

SHOWN_REFUSALS = 10


class DestinationName(StrEnum):
    """The ways to send documents."""

    api = "api"
    queue = "queue"


def load(  # noqa: PLR0913, PLR0917 (each is an option of the command)
    source: Annotated[
        list[Path],
        typer.Argument(
            help="files of JSONL, CSV, TSV, Parquet, Markdown, HTML or text, or a directory of the last three; "
            "may be compressed (.gz, .bz2, .xz, .zst)"
        ),
    ],
    index: Annotated[str, typer.Option("--index", "-i", help="index to load into")],
    api: ApiOption = None,
    via: Annotated[
        DestinationName, typer.Option(help="send to the API, or to the bulk queue at REDIS_URL")
    ] = DestinationName.api,
    format: Annotated[FileFormat | None, typer.Option(help="format of files without a known suffix")] = None,  # noqa: A002
    kind: Annotated[
        DocumentKind | None,
        typer.Option(
            help="talk: a directory of transcripts (vtt, json, srt, txt) with .chapters.json and .meta.json, or rows "
            "with the kind talk; --create then declares talk"
        ),
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="delimiter of a CSV file, one character")] = None,
    map: Annotated[  # noqa: A002
        list[str] | None,
        typer.Option(
            help="TARGET=COLUMN or TARGET=COLUMN,COLUMN; targets: id, title, text, version, metadata.NAME; repeatable"
        ),
    ] = None,
    id_from: Annotated[
        str | None, typer.Option(help="column of the id, or @content for a hash of the document")
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="create the index if it is missing")] = False,
    field: Annotated[
        list[str] | None, typer.Option(help="with --create: NAME=TYPE of a metadata field; repeatable")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=1000, help="documents per request or message")] = 500,
    wait: Annotated[bool, typer.Option(help="wait until all documents are encoded")] = True,
    restart: Annotated[bool, typer.Option("--restart", help="start again instead of resuming")] = False,
    rejected: Annotated[Path | None, typer.Option(help="file for refused documents with reasons (JSONL)")] = None,
    retry_seconds: RetrySecondsOption = 300.0,
) -> None:
    """Load documents into an index. Repeat the command to resume a stopped load.

    Exit status 0: all documents were accepted and, without --no-wait, encoded. 1: some were not, or an error.

    Example: sparsewell load books.csv --index books --create --map id=isbn --map text=description
    """
    from rich.console import Console

    from cli.api_client import api_address, require_writable
    from cli.loading.destinations import ApiDestination, QueueDestination, send_all
    from cli.loading.field_map import DocumentMapper, parse_field_map
    from cli.terminal import LoadDisplay
    from services.settings import Settings

    settings = Settings.read()
    # Check all options before creating anything.
    fields = parse_fields(field or [], create=create)
    field_map = parse_field_map(map or [], id_from)
    base = api_address(settings, api)
    sources = open_sources(source, format, delimiter, field_map, kind)
    records = records_directory()
    if rejected is not None:
        require_writable(rejected)
    with LoadDisplay(Console(stderr=True)) as show:
        rest = ApiDestination(base, index, retry_seconds, show.report)
        if create and rest.create(
            dict.fromkeys(field_map.metadata, "keyword") | fields, talk=kind is DocumentKind.talk
        ):
            show.report(f"Created the index {index}.")
        typed = any(opened.typed for opened in sources)
        needs_api = via is DestinationName.api or create or typed
        created_at = rest.created_at() if needs_api else rest.created_at_if_known()
        make = DocumentMapper(field_map, rest.fields() if typed else {}, talk=typed and rest.takes_talk())
        target = (f"{via.value} {base}", index, created_at, repr((field_map, format, delimiter, kind)))
        record = open_checkpoint(records, source, sources, target, restart=restart, report=show.report)
        job = next(iter(record.jobs), None)
        destination = (
            QueueDestination(settings.redis_address, index, job, retry_seconds, show.report)
            if via is DestinationName.queue
            else rest.of(record.load)
        )
        for note in (note for opened in sources for note in opened.notes()):
            show.report(note)
        try:
            if record.resumed:
                show.report(f"Resuming after {describe_place(record, sources)} (--restart starts again).")
            send_all(sources, record, destination, make, batch, show)
            states = _wait_for_load(record, rest, via, sources, show) if wait else None
        except KeyboardInterrupt:
            show.report(f"Stopped after {describe_place(record, sources)}. Repeat the command to resume.")
            raise typer.Exit(130) from None
        finally:
            destination.close()
            rest.close()
        if make.unused:
            show.report(f"Unused columns: {', '.join(make.unused)} (see --map).")
    if rejected is not None:
        _write_refusals(rejected, record)
    raise typer.Exit(report_load(record, states))


def parse_fields(pairs: list[str], *, create: bool) -> dict[str, str]:
    """Parse NAME=TYPE pairs of metadata fields. Raises ConfigurationError (`bad_field`)."""
    from services.errors import ConfigurationError

    if pairs and not create:
        raise ConfigurationError("bad_field", "--field needs --create: it declares fields of a new index.")
    fields = {}
    for pair in pairs:
        name, equals, kind = pair.partition("=")
        if not equals or not name or kind not in ("keyword", "text", "number", "date", "boolean"):
            raise ConfigurationError(
                "bad_field", f"--field {pair!r} is not NAME=TYPE with keyword, text, number, date or boolean."
            )
        fields[name] = kind
    return fields


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


def records_directory() -> Path:
    """Return the directory with the progress of loads."""
    from services.directories import DirectorySettings, make_directory, resolve_state_directory

    return make_directory(resolve_state_directory(DirectorySettings.read()) / "loads")


def open_checkpoint(
    directory: Path,
    paths: list[Path],
    sources: "Sequence[LoadSource]",
    target: tuple[str, ...],
    *,
    restart: bool,
    report: Callable[[str], None],
) -> "LoadCheckpoint":
    """Open the checkpoint of a load of these sources to a target. Start anew with `restart` or if they have changed.

    Raises ConfigurationError (`unreadable_file`).
    """
    from cli.loading.checkpoint import LoadCheckpoint, checkpoint_name, content_identity
    from services.errors import ConfigurationError

    try:
        content = content_identity(sources)
    except OSError as error:
        raise ConfigurationError("unreadable_file", f"{error.filename} cannot be read: {error.strerror}.") from None
    record = LoadCheckpoint.open(directory / checkpoint_name(paths, *target), content)
    changed = record.content != content
    if changed:
        report("The sources have changed since the interrupted load: starting again.")
    if restart or changed:
        record = LoadCheckpoint(record.path, content)
    record.save()  # the load's id must be on disk before a batch has an idempotency key made from it
    return record


def describe_place(record: "LoadCheckpoint", sources: "Sequence[LoadSource]") -> str:
    """Describe the position of a load."""
    if record.place.part == len(sources):
        return "the last line"
    line = f"line {record.place.line:,}"
    return line if len(sources) == 1 else f"{line} of {sources[record.place.part].name}"


def _wait_for_load(
    record: "LoadCheckpoint",
    rest: "ApiDestination",
    via: DestinationName,
    sources: "Sequence[LoadSource]",
    show: "LoadDisplay",
) -> Counter[str]:
    from cli.loading.destinations import locate_refusal, wait_for_jobs
    from cli.loading.source import Refusal

    # Workers accept or refuse the documents of the queue later.
    sent = record.accepted
    states, jobs = wait_for_jobs(
        record.jobs if sent else [],
        sent,
        lambda job: via is DestinationName.api or job["accepted"] + job["rejected"] >= sent,
        rest.job,
        show,
    )
    if via is DestinationName.queue:
        for job in jobs:
            refusals = [Refusal(r["position"], r["id"], r["code"], r["reason"]) for r in job["rejections"]]
            record.accepted = job["accepted"]
            record.refuse([locate_refusal(refusal, record, sources) for refusal in refusals])
            record.rejected += job["rejected"] - len(refusals)
        record.save()
    return states


def report_load(record: "LoadCheckpoint", states: Counter[str] | None) -> int:
    """Print the result of the load, delete its checkpoint, and return the exit status."""
    for refusal in islice(record.refusals(), SHOWN_REFUSALS):
        name = f" ({refusal.id})" if refusal.id else ""
        typer.echo(sanitise_line(f"{refusal.where}{name}: {refusal.reason} [{refusal.code}]"))
    if record.rejected > SHOWN_REFUSALS:
        typer.echo(f"... and {record.rejected - SHOWN_REFUSALS:,} more; --rejected FILE writes all to a file.")
    typer.echo(f"{record.accepted:,} accepted, {record.rejected:,} rejected")
    record.forget()
    if states is None:
        return 1 if record.rejected else 0
    names = ("encoded", "dead", "superseded")
    typer.echo(", ".join(f"{states[name]:,} {name}" for name in names if states[name] or name == "encoded"))
    return 1 if record.rejected or states["dead"] else 0


def _write_refusals(path: Path, record: "LoadCheckpoint") -> None:
    with path.open("w", encoding="utf-8") as out:
        for refusal in record.refusals():
            out.write(json.dumps(refusal.as_json(), ensure_ascii=False) + "\n")
