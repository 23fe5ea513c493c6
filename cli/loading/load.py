"""`sparsewell load`: load files of documents into an index. A stopped load can be resumed.

The command checks its options, opens the sources of its arguments by format (`open_sources`), sends all batches,
waits until the documents are encoded, and prints the refused ones.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.loading.arguments import open_sources, save_standard_input
from cli.loading.source import DocumentKind, FileFormat, LoadSource
from cli.terminal import ApiOption, RetrySecondsOption, sanitise_line
from services.errors import ConfigurationError, Conflict

if TYPE_CHECKING:
    from cli.loading.checkpoint import LoadCheckpoint
    from cli.loading.destinations import ApiDestination
    from cli.terminal import LoadDisplay

SHOWN_REFUSALS = 10


class DestinationName(StrEnum):
    """The ways to send documents."""

    api = "api"
    queue = "queue"


def load(  # noqa: PLR0913, PLR0915, PLR0917 (each is an option of the command)
    source: Annotated[
        list[Path],
        typer.Argument(
            help="files of JSONL, CSV, TSV, Parquet, Markdown, HTML or text, or a directory of the last three; "
            "may be compressed (.gz, .bz2, .xz, .zst); - reads rows from standard input"
        ),
    ],
    index: Annotated[str, typer.Option("--index", "-i", help="index to load into")],
    api: ApiOption = None,
    via: Annotated[
        DestinationName, typer.Option(help="send to the API, or to the bulk queue at REDIS_URL")
    ] = DestinationName.api,
    format: Annotated[FileFormat | None, typer.Option(help="format of files without a known suffix")] = None,  # noqa: A002 (the name of the option)
    kind: Annotated[
        DocumentKind | None,
        typer.Option(
            help="talk: a directory of transcripts (vtt, json, srt, txt) with .chapters.json and .meta.json, or rows "
            "with the kind talk; --create then declares talk"
        ),
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="delimiter of a CSV file, one character")] = None,
    map: Annotated[  # noqa: A002 (the name of the option)
        list[str] | None,
        typer.Option(
            help="TARGET=COLUMN or TARGET=COLUMN,COLUMN; targets: id, title, text, version, metadata.NAME; repeatable"
        ),
    ] = None,
    id_from: Annotated[
        str | None, typer.Option(help="column of the id, or @content for a hash of the document")
    ] = None,
    create: Annotated[
        bool,
        typer.Option(
            "--create", help="create the index if it is missing, as the declaration file of an export declares it"
        ),
    ] = False,
    field: Annotated[
        list[str] | None, typer.Option(help="with --create: NAME=TYPE of a metadata field; repeatable")
    ] = None,
    mirror: Annotated[
        bool,
        typer.Option("--mirror", help="also delete the documents of the index that have no file in the directory"),
    ] = False,
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
    from cli.loading.mirror import find_mirrored_directory, read_indexed_documents, remove_documents_without_file
    from cli.terminal import LoadDisplay
    from services.index_spec import IndexSpec
    from services.settings import Settings

    settings = Settings.read()
    # Check all options before creating anything.
    fields = parse_fields(field or [], create=create)
    field_map = parse_field_map(map or [], id_from)
    base = api_address(settings, api)
    records = records_directory()
    with save_standard_input(source, format, records) as paths, LoadDisplay(Console(stderr=True)) as show:
        sources = open_sources(paths, format, delimiter, field_map, kind)
        mirrored = find_mirrored_directory(sources, maps_ids=field_map.maps_ids) if mirror else None
        if rejected is not None:
            require_writable(rejected)
        rest = ApiDestination(base, index, retry_seconds, show.report)
        if create:
            declaration = make_declaration(paths, field_map.metadata, fields, talk=kind is DocumentKind.talk)
            _create_index(rest, index, declaration, fields, show.report)
        typed = any(opened.typed for opened in sources)
        needs_api = via is DestinationName.api or create or typed
        created_at = rest.created_at() if needs_api else rest.created_at_if_known()
        spec = rest.spec() if typed else IndexSpec()
        make = DocumentMapper(field_map, spec.fields, talk=spec.talk is not None)
        target = (f"{via.value} {base}", index, created_at, repr((field_map, format, delimiter, kind)))
        record = open_checkpoint(records, paths, sources, target, restart=restart, report=show.report)
        job = next(iter(record.jobs), None)
        if via is DestinationName.queue:
            from services.queue.installation import claim_redis

            claim_redis(settings)
        destination = (
            QueueDestination(settings.redis_address, index, job, retry_seconds, show.report)
            if via is DestinationName.queue
            else rest.of(record.load)
        )
        _report_start(record, sources, show.report)
        removed = 0
        try:
            indexed = read_indexed_documents(rest, sources, show, mirror=mirror)
            send_all(sources, record, destination, make, batch, show, indexed.has if indexed else lambda _: False)
            if mirrored is not None and indexed is not None:
                removed = remove_documents_without_file(rest, mirrored, indexed, show.report)
            states = _wait_for_load(record, rest, via, sources, show) if wait else None
        except KeyboardInterrupt:
            show.report(f"Stopped after {describe_place(record, sources)}. Repeat the command to resume.")
            raise typer.Exit(130) from None
        finally:
            destination.close()
            rest.close()
        if make.unused:
            show.report(f"Unused columns: {', '.join(make.unused)} (see --map).")
    _write_refusals(rejected, record)
    raise typer.Exit(report_load(record, states, removed))


def _create_index(
    rest: "ApiDestination",
    index: str,
    declaration: Mapping[str, Any],
    fields: Mapping[str, str],
    report: Callable[[str], None],
) -> None:
    """Create the index if it is missing. Raises Conflict (`field_differs`)."""
    if rest.create(declaration):
        report(f"Created the index {index}.")
    require_declared(index, fields, rest.spec().fields)


def _report_start(record: "LoadCheckpoint", sources: "Sequence[LoadSource]", report: Callable[[str], None]) -> None:
    """Report the skipped files, and where a stopped load continues."""
    for note in (note for opened in sources for note in opened.notes()):
        report(note)
    if record.resumed:
        report(f"Resuming after {describe_place(record, sources)} (--restart starts again).")


def make_declaration(
    paths: Sequence[Path], mapped: Sequence[str], fields: Mapping[str, str], *, talk: bool
) -> dict[str, Any]:
    """Return the declaration of a new index: the one beside an export, with the mapped fields and those of --field.

    Raises ConfigurationError (`bad_declaration`).
    """
    from services.declarations import read_export_declaration

    found = [declared for path in paths if (declared := read_export_declaration(path)) is not None]
    if any(declared != found[0] for declared in found):
        raise ConfigurationError("bad_declaration", "The declarations beside the files differ: load each file alone.")
    declaration = found[0] if found else {}
    declaration["fields"] = dict.fromkeys(mapped, "keyword") | declaration.get("fields", {}) | fields
    return {"talk": {}} | declaration if talk and not declaration.get("talk") else declaration


def require_declared(index: str, fields: Mapping[str, str], existing: Mapping[str, str]) -> None:
    """Check that an index declares the fields of --field. Raises Conflict (`field_differs`).

    An index that exists keeps its declaration, so a load would refuse or convert values by another type.
    """
    for name, kind in fields.items():
        if existing.get(name) != kind:
            declared = f"declares {name}={existing[name]}" if name in existing else f"does not declare {name}"
            raise Conflict(
                "field_differs",
                f"The index {index} exists and {declared}: leave out --field {name}={kind}, or change the index with "
                f"`sparsewell reindex {index} --field {name}={kind}`.",
            )


def parse_fields(pairs: list[str], *, create: bool) -> dict[str, str]:
    """Parse NAME=TYPE pairs of metadata fields. Raises ConfigurationError (`bad_field`)."""
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
    target: tuple[str, ...],
    *,
    restart: bool,
    report: Callable[[str], None],
) -> "LoadCheckpoint":
    """Open the checkpoint of a load of these sources to a target. Start anew with `restart` or if they have changed.

    Raises ConfigurationError (`unreadable_file`).
    """
    from cli.loading.checkpoint import LoadCheckpoint, checkpoint_name, content_identity

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


def report_load(record: "LoadCheckpoint", states: Counter[str] | None, removed: int = 0) -> int:
    """Print the result of the load, delete its checkpoint, and return the exit status."""
    for refusal in islice(record.refusals(), SHOWN_REFUSALS):
        name = f" ({refusal.id})" if refusal.id else ""
        typer.echo(sanitise_line(f"{refusal.where}{name}: {refusal.reason} [{refusal.code}]"))
    if record.rejected > SHOWN_REFUSALS:
        typer.echo(f"... and {record.rejected - SHOWN_REFUSALS:,} more; --rejected FILE writes all to a file.")
    further = ((record.unchanged, "unchanged"), (removed, "removed"))
    counts = [f"{record.accepted:,} accepted", f"{record.rejected:,} rejected"]
    typer.echo(", ".join([*counts, *(f"{count:,} {name}" for count, name in further if count)]))
    record.forget()
    if states is None:
        return 1 if record.rejected else 0
    names = ("encoded", "dead", "superseded")
    typer.echo(", ".join(f"{states[name]:,} {name}" for name in names if states[name] or name == "encoded"))
    return 1 if record.rejected or states["dead"] else 0


def _write_refusals(path: Path | None, record: "LoadCheckpoint") -> None:
    if path is None:
        return
    with path.open("w", encoding="utf-8") as out:
        for refusal in record.refusals():
            out.write(json.dumps(refusal.as_json(), ensure_ascii=False) + "\n")
