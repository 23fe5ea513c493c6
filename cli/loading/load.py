"""`sparsewell load`: load files of documents into an index. A stopped load can be resumed.

From the arguments of the command to sources: which format, and whether it can be read at all.
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
from services.documents.compressed_lines import split_suffixes
from services.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from cli.loading.checkpoint import LoadCheckpoint
    from cli.loading.destinations import ApiDestination
    from cli.loading.field_map import FieldMap
    from cli.progress import LoadDisplay


def open_sources(
    paths: Sequence[Path],
    given: FileFormat | None,
    delimiter: str | None,
    field_map: "FieldMap",
    kind: DocumentKind | None = None,
) -> list[LoadSource]:
    """The sources in the order of the arguments, their headers checked.

    Raises ConfigurationError (`unreadable_file`, `unknown_format`, `unknown_column`, `bad_delimiter`), of a single
    source InvalidInput too.
    """
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '\r\n"'):
        raise ConfigurationError("bad_delimiter", f"--delimiter {delimiter!r} is not one character.")
    if kind is DocumentKind.talk and not all(_has_rows(path, given) for path in paths):
        if given or delimiter or field_map.given:
            raise ConfigurationError("bad_map", "--kind talk reads transcripts, which have no columns to map.")
        return _open_talks(paths)
    found: list[LoadSource] = []
    # text files that follow each other are one source: a batch never holds lines of two
    for directory, held, group in _group_arguments(paths, given):
        try:
            found += _open_group(directory, held, group, given, delimiter, field_map)
        except OSError as error:
            name = error.filename or group[0]
            raise ConfigurationError("unreadable_file", f"{name} cannot be read: {error.strerror}.") from None
    _require_one_directory(paths)
    _check_columns(found, field_map)
    return found


def _has_rows(path: Path, given: FileFormat | None) -> bool:
    """Whether a file has a document in each row, which says itself what is talk."""
    from cli.loading.text_files import TRANSCRIPT_MEDIA_TYPES

    if path.is_dir():
        return False
    suffix = split_suffixes(path)[0]
    return (given or (None if suffix in TRANSCRIPT_MEDIA_TYPES else FORMATS_BY_SUFFIX.get(suffix))) in ROW_FORMATS


def _open_talks(paths: Sequence[Path]) -> list[LoadSource]:
    from cli.loading.text_files import TalkSource

    found: list[LoadSource] = []
    try:
        for directory, group in groupby(paths, Path.is_dir):
            files = list(group)
            for path in () if directory else files:
                path.open("rb").close()
            found += [TalkSource(path) for path in files] if directory else [TalkSource(None, files)]
    except OSError as error:
        name = error.filename or paths[0]
        raise ConfigurationError("unreadable_file", f"{name} cannot be read: {error.strerror}.") from None
    _require_one_directory(paths)
    return found


def _require_one_directory(paths: Sequence[Path]) -> None:
    if sum(path.is_dir() for path in paths) > 1:
        raise ConfigurationError("two_directories", "Load one directory at a time: ids are paths below it.")


def _group_arguments(
    paths: Sequence[Path], given: FileFormat | None
) -> Iterator[tuple[bool, FileFormat | None, list[Path]]]:
    """Runs of arguments that are read alike: whether it is a directory, the format, the paths."""

    def kind(path: Path) -> tuple[bool, FileFormat | None]:
        if path.is_dir():
            return True, None
        found = given or detect_format(path)
        return False, FileFormat.text if found in TEXT_FORMATS else found

    for (directory, one), group in groupby(paths, kind):
        yield directory, one, list(group)


def _open_group(
    directory: bool,
    kind: FileFormat | None,
    group: list[Path],
    given: FileFormat | None,
    delimiter: str | None,
    field_map: "FieldMap",
) -> list[LoadSource]:
    from cli.loading.tabular import DelimitedSource, JsonLinesSource, ParquetSource
    from cli.loading.text_files import TextSource

    if directory:
        return [TextSource(path) for path in group]
    for path in group:
        if not path.is_file() and path.exists():  # opening a pipe would take what is in it
            raise ConfigurationError("unreadable_file", f"{path} is no file that can be read a second time.")
        path.open("rb").close()
    match kind:
        case FileFormat.jsonl:
            return [JsonLinesSource(path, mapped=field_map.given) for path in group]
        case FileFormat.csv | FileFormat.tsv:
            between = delimiter or ("," if kind is FileFormat.csv else "\t")
            return [DelimitedSource(path, between) for path in group]
        case FileFormat.parquet:
            return [ParquetSource(path) for path in group]
        case _:
            return [TextSource(None, group, given)]


def _check_columns(sources: Sequence[LoadSource], field_map: "FieldMap") -> None:
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
    api: Annotated[str | None, typer.Option(help="address of the API; default: of the settings")] = None,
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
    patience: Annotated[float, typer.Option(min=0, help="seconds to wait for an unavailable service")] = 300.0,
) -> None:
    """Load documents into an index. Repeat the command to resume a stopped load.

    Exit status 0: all documents were accepted and, without --no-wait, encoded. 1: some were not, or an error.

    Example: sparsewell load books.csv --index books --create --map id=isbn --map text=description
    """
    from rich.console import Console

    from cli.api_client import api_address, require_writable
    from cli.loading.destinations import ApiDestination, QueueDestination, send_all
    from cli.loading.field_map import DocumentMapper, parse_field_map
    from cli.progress import LoadDisplay
    from services.settings import Settings

    settings = Settings.read()
    # Find every fault of the options before creating anything.
    fields = parse_fields(field or [], create=create)
    field_map = parse_field_map(map or [], id_from)
    base = api_address(settings, api)
    sources = open_sources(source, format, delimiter, field_map, kind)
    records = records_directory()
    if rejected is not None:
        require_writable(rejected)
    with LoadDisplay(Console(stderr=True)) as show:
        rest = ApiDestination(base, index, patience, show.say)
        if create and rest.create(
            dict.fromkeys(field_map.metadata, "keyword") | fields, talk=kind is DocumentKind.talk
        ):
            show.say(f"Created the index {index}.")
        typed = any(one.typed for one in sources)
        needed = via is DestinationName.api or create or typed
        created_at = rest.created_at() if needed else rest.created_at_if_known()
        make = DocumentMapper(field_map, rest.fields() if typed else {}, talk=typed and rest.takes_talk())
        way = (f"{via.value} {base}", index, created_at, repr((field_map, format, delimiter, kind)))
        record = open_checkpoint(records, source, sources, way, restart=restart, say=show.say)
        job = next(iter(record.jobs), None)
        door = (
            QueueDestination(settings.redis_address, index, job, patience, show.say)
            if via is DestinationName.queue
            else rest.of(record.load)
        )
        for note in (note for one in sources for note in one.notes()):
            show.say(note)
        try:
            if record.resumed:
                show.say(f"Resuming after {describe_place(record, sources)} (--restart starts again).")
            send_all(sources, record, door, make, batch, show)
            states = _wait_for_load(record, rest, via, sources, show) if wait else None
        except KeyboardInterrupt:
            show.say(f"Stopped after {describe_place(record, sources)}. Repeat the command to resume.")
            raise typer.Exit(130) from None
        finally:
            door.close()
            rest.close()
        if make.unused:
            show.say(f"Unused columns: {', '.join(make.unused)} (see --map).")
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


def records_directory() -> Path:
    """Return the directory with the progress of loads."""
    from services.directories import DirectorySettings, make_directory, resolve_state_directory

    return make_directory(resolve_state_directory(DirectorySettings.read()) / "loads")


def open_checkpoint(
    directory: Path,
    paths: list[Path],
    sources: "Sequence[LoadSource]",
    way: tuple[str, ...],
    *,
    restart: bool,
    say: Callable[[str], None],
) -> "LoadCheckpoint":
    """Return the record of this load; a new one with `restart`, or if the sources have changed."""
    from cli.loading.checkpoint import LoadCheckpoint, checkpoint_name, content_identity
    from services.errors import ConfigurationError

    try:
        content = content_identity(sources)
    except OSError as error:
        raise ConfigurationError("unreadable_file", f"{error.filename} cannot be read: {error.strerror}.") from None
    record = LoadCheckpoint.open(directory / checkpoint_name(paths, *way), content)
    changed = record.content != content
    if changed:
        say("The sources have changed since the interrupted load: starting again.")
    if restart or changed:
        record = LoadCheckpoint(record.path, content)
    record.save()  # the name of the load must be on disk before the first batch is sent under it
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

    # A worker accepts or refuses the documents of the queue later.
    handed = record.accepted
    states, jobs = wait_for_jobs(
        record.jobs if handed else [],
        handed,
        lambda job: via is DestinationName.api or job["accepted"] + job["rejected"] >= handed,
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
    """Print the result of the load, delete its record, and return the exit status."""
    for refusal in islice(record.refusals(), SHOWN_REFUSALS):
        name = f" ({refusal.id})" if refusal.id else ""
        typer.echo(f"{refusal.where}{name}: {refusal.reason} [{refusal.code}]")
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
