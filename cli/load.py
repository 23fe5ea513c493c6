"""`sparsewell load`: load files of documents into an index. A stopped load can be resumed."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.loading.formats import Format, Kind

if TYPE_CHECKING:
    from cli.loading.api_door import ApiDoor
    from cli.loading.display import Display
    from cli.loading.record import LoadRecord
    from cli.loading.source import Source

SHOWN_REFUSALS = 10


class Via(StrEnum):
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
    via: Annotated[Via, typer.Option(help="send to the API, or to the bulk queue at REDIS_URL")] = Via.api,
    format: Annotated[Format | None, typer.Option(help="format of files without a known suffix")] = None,  # noqa: A002
    kind: Annotated[
        Kind | None,
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

    from cli.api_answers import api_address
    from cli.loading.api_door import ApiDoor
    from cli.loading.display import Display
    from cli.loading.field_map import Mapper, parse_map
    from cli.loading.opening import open_sources
    from cli.loading.queue_door import QueueDoor
    from cli.loading.sending import send_all
    from cli.result_files import require_writable
    from services.settings import Settings

    settings = Settings.read()
    # Find every fault of the options before creating anything.
    fields = parse_fields(field or [], create=create)
    field_map = parse_map(map or [], id_from)
    base = api_address(settings, api)
    sources = open_sources(source, format, delimiter, field_map, kind)
    records = records_directory()
    if rejected is not None:
        require_writable(rejected)
    with Display(Console(stderr=True)) as show:
        rest = ApiDoor(base, index, patience, show.say)
        if create and rest.create(dict.fromkeys(field_map.metadata, "keyword") | fields, talk=kind is Kind.talk):
            show.say(f"Created the index {index}.")
        typed = any(one.typed for one in sources)
        needed = via is Via.api or create or typed
        created_at = rest.created_at() if needed else rest.created_at_if_known()
        make = Mapper(field_map, rest.fields() if typed else {}, talk=typed and rest.takes_talk())
        way = (f"{via.value} {base}", index, created_at, repr((field_map, format, delimiter, kind)))
        record = open_record(records, source, sources, way, restart=restart, say=show.say)
        job = next(iter(record.jobs), None)
        door = (
            QueueDoor(settings.redis_address, index, job, patience, show.say)
            if via is Via.queue
            else rest.of(record.load)
        )
        for note in (note for one in sources for note in one.notes()):
            show.say(note)
        try:
            if record.resumed:
                show.say(f"Resuming after {place(record, sources)} (--restart starts again).")
            send_all(sources, record, door, make, batch, show)
            states = _wait(record, rest, via, sources, show) if wait else None
        except KeyboardInterrupt:
            show.say(f"Stopped after {place(record, sources)}. Repeat the command to resume.")
            raise typer.Exit(130) from None
        finally:
            door.close()
            rest.close()
        if make.unused:
            show.say(f"Unused columns: {', '.join(make.unused)} (see --map).")
    if rejected is not None:
        _write_refusals(rejected, record)
    raise typer.Exit(report(record, states))


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
    from services.machine.directories import DirectorySettings, make_directory, state_dir

    return make_directory(state_dir(DirectorySettings.read()) / "loads")


def open_record(
    directory: Path,
    paths: list[Path],
    sources: "Sequence[Source]",
    way: tuple[str, ...],
    *,
    restart: bool,
    say: Callable[[str], None],
) -> "LoadRecord":
    """Return the record of this load; a new one with `restart`, or if the sources have changed."""
    from cli.loading.record import LoadRecord, content_identity, record_name
    from services.errors import ConfigurationError

    try:
        content = content_identity(sources)
    except OSError as error:
        raise ConfigurationError("unreadable_file", f"{error.filename} cannot be read: {error.strerror}.") from None
    record = LoadRecord.open(directory / record_name(paths, *way), content)
    changed = record.content != content
    if changed:
        say("The sources have changed since the interrupted load: starting again.")
    if restart or changed:
        record = LoadRecord(record.path, content)
    record.save()  # the name of the load must be on disk before the first batch is sent under it
    return record


def place(record: "LoadRecord", sources: "Sequence[Source]") -> str:
    """Describe the position of a load."""
    if record.place.part == len(sources):
        return "the last line"
    line = f"line {record.place.line:,}"
    return line if len(sources) == 1 else f"{line} of {sources[record.place.part].name}"


def _wait(
    record: "LoadRecord", rest: "ApiDoor", via: Via, sources: "Sequence[Source]", show: "Display"
) -> Counter[str]:
    from cli.loading.refusal import Refusal
    from cli.loading.sending import located
    from cli.loading.waiting import wait_for_jobs

    # A worker accepts or refuses the documents of the queue later.
    handed = record.accepted
    states, jobs = wait_for_jobs(
        record.jobs if handed else [],
        handed,
        lambda job: via is Via.api or job["accepted"] + job["rejected"] >= handed,
        rest.job,
        show,
    )
    if via is Via.queue:
        for job in jobs:
            refusals = [Refusal(r["position"], r["id"], r["code"], r["reason"]) for r in job["rejections"]]
            record.accepted = job["accepted"]
            record.refuse([located(refusal, record, sources) for refusal in refusals])
            record.rejected += job["rejected"] - len(refusals)
        record.save()
    return states


def report(record: "LoadRecord", states: Counter[str] | None) -> int:
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


def _write_refusals(path: Path, record: "LoadRecord") -> None:
    with path.open("w", encoding="utf-8") as out:
        for refusal in record.refusals():
            out.write(json.dumps(refusal.as_json(), ensure_ascii=False) + "\n")
