"""`sparsewell load`: a file of documents into an index, resumable, with counts by state at the end."""

import json
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cli.loading.api_door import ApiDoor
    from cli.loading.display import Display
    from cli.loading.queue_door import QueueDoor
    from cli.loading.record import LoadRecord, Refusal

SHOWN_REFUSALS = 10


class Via(StrEnum):
    """The doors for documents."""

    api = "api"
    queue = "queue"


def load(  # noqa: PLR0913, PLR0917 (each is an option of the command)
    file: Annotated[Path, typer.Argument(help="documents, one JSON object a line; .gz is read as it is")],
    index: Annotated[str, typer.Option("--index", "-i", help="index to load into")],
    api: Annotated[str | None, typer.Option(help="address of the API")] = None,
    via: Annotated[Via, typer.Option(help="the API, or the bulk queue (then REDIS_URL says where)")] = Via.api,
    create: Annotated[bool, typer.Option("--create", help="create the index when it is missing")] = False,
    field: Annotated[
        list[str] | None, typer.Option(help="with --create: NAME=TYPE of a metadata field; may be repeated")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=1000, help="documents a request or message")] = 500,
    wait: Annotated[bool, typer.Option(help="wait until everything is encoded")] = True,
    restart: Annotated[bool, typer.Option("--restart", help="begin anew instead of going on")] = False,
    rejected: Annotated[Path | None, typer.Option(help="write refused lines with their reasons here (JSONL)")] = None,
    patience: Annotated[float, typer.Option(min=0, help="seconds to wait for a service that is away")] = 300.0,
) -> None:
    """Load a JSONL file; the same command goes on where an earlier one ended.

    Exit status 0: every document was accepted and, unless --no-wait, encoded. 1: some were not, or an error.
    """
    from rich.console import Console

    from cli.api_answers import api_address
    from cli.loading.api_door import ApiDoor
    from cli.loading.display import Display
    from cli.loading.queue_door import QueueDoor
    from cli.loading.record import LoadRecord
    from cli.result_files import require_writable
    from services.settings import Settings

    settings = Settings.read()
    # Whatever can be wrong is found out before anything is created.
    fields = parse_fields(field or [], create=create)
    base = api_address(settings, api)
    record_path(file, "", "", "")
    if rejected is not None:
        require_writable(rejected)
    with Display(Console(stderr=True)) as show:
        rest = ApiDoor(base, index, patience, show.say)
        if create and rest.create(fields):
            show.say(f"Created the index {index}.")
        created_at = rest.created_at() if via is Via.api or create else rest.created_at_if_known()
        record = LoadRecord.open(record_path(file, f"{via.value} {base}", index, created_at))
        if restart:
            record = LoadRecord(record.path)
        door: ApiDoor | QueueDoor = rest
        if via is Via.queue:
            door = QueueDoor(settings.redis_url, index, next(iter(record.jobs), None), patience, show.say)
        try:
            if record.resumed:
                show.say(f"Going on after line {record.place.line:,} (--restart begins anew).")
            _send_all(file, record, door, batch, show)
            states = _wait(record, rest, via, show) if wait else None
        except KeyboardInterrupt:
            show.say(f"Stopped after line {record.place.line:,}; the same command goes on from there.")
            raise typer.Exit(130) from None
        finally:
            door.close()
            rest.close()
    record.forget()
    if rejected is not None:
        _write_refusals(rejected, record.refusals)
    raise typer.Exit(report(record, states))


def parse_fields(pairs: list[str], *, create: bool) -> dict[str, str]:
    """NAME=TYPE pairs as an index declares them. Raises ConfigurationError (`bad_field`)."""
    from services.errors import ConfigurationError

    if pairs and not create:
        raise ConfigurationError("bad_field", "--field declares fields of a new index: give --create as well.")
    fields = {}
    for pair in pairs:
        name, equals, kind = pair.partition("=")
        if not equals or not name or kind not in ("keyword", "text", "number", "date", "boolean"):
            raise ConfigurationError(
                "bad_field", f"--field {pair!r} is not NAME=TYPE with keyword, text, number, date or boolean."
            )
        fields[name] = kind
    return fields


def record_path(file: Path, door: str, index: str, created_at: str) -> Path:
    """Where the progress of this load is kept. Raises ConfigurationError (`unreadable_file`)."""
    from cli.loading.record import record_name
    from infra.directories import make_directory, state_dir
    from infra.settings import LocalSettings
    from services.errors import ConfigurationError

    try:
        name = record_name(file, door, index, created_at)
    except OSError as error:
        raise ConfigurationError("unreadable_file", f"{file} cannot be read: {error.strerror}.") from None
    return make_directory(state_dir(LocalSettings.read()) / "loads") / name


def _send_all(file: Path, record: "LoadRecord", door: "ApiDoor | QueueDoor", batch_size: int, show: "Display") -> None:
    from cli.loading.source import read_batches

    total = file.stat().st_size
    show.begin("loading", total, first=record.sent)
    for batch in read_batches(file, record.place, batch_size, max_bytes=4 * 1024**2):
        if batch.lines:
            sent = door.send(batch)
            record.jobs += [job for job in sent.jobs if job not in record.jobs]
            record.sent += len(batch.lines)
            record.accepted += sent.accepted
            record.refuse(sent.refusals)
        record.place = batch.end
        record.save()
        show.step(batch.read, total, record.sent)


def _wait(record: "LoadRecord", rest: "ApiDoor", via: Via, show: "Display") -> Counter[str]:
    from cli.loading.record import Refusal
    from cli.loading.waiting import wait_for_jobs

    # What was handed to the queue is accepted or refused by a worker, later.
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
            record.refuse(refusals)
            record.rejected += job["rejected"] - len(refusals)
    return states


def report(record: "LoadRecord", states: Counter[str] | None) -> int:
    """Prints what became of the documents; returns the exit status."""
    for refusal in sorted(record.refusals, key=lambda one: one.line)[:SHOWN_REFUSALS]:
        name = f" ({refusal.id})" if refusal.id else ""
        typer.echo(f"line {refusal.line}{name}: {refusal.reason} [{refusal.code}]")
    if record.rejected > SHOWN_REFUSALS:
        typer.echo(f"... and {record.rejected - SHOWN_REFUSALS:,} more; --rejected FILE writes the first 1,000.")
    typer.echo(f"{record.accepted:,} accepted, {record.rejected:,} rejected")
    if states is None:
        return 1 if record.rejected else 0
    names = ("encoded", "dead", "superseded")
    typer.echo(", ".join(f"{states[name]:,} {name}" for name in names if states[name] or name == "encoded"))
    return 1 if record.rejected or states["dead"] else 0


def _write_refusals(path: Path, refusals: "list[Refusal]") -> None:
    with path.open("w", encoding="utf-8") as out:
        for refusal in sorted(refusals, key=lambda one: one.line):
            out.write(json.dumps(refusal.as_json(), ensure_ascii=False) + "\n")
