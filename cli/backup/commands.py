"""`sparsewell backup` and `sparsewell restore`: OpenSearch snapshots of all data of sparsewell.

A backup is a snapshot of the searched generations and the system indexes (`cli.backup.repository`). A restore makes new
generations from it (`cli.backup.restore`).
"""

import json as jsonlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cli.backup.repository import BackupRepository

app = typer.Typer(
    no_args_is_help=True, help="Make, list, verify and delete backups in a snapshot repository of OpenSearch."
)

NameArgument = Annotated[str, typer.Argument(help="name of a backup, or latest")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]
LATEST_BACKUP = "latest"


@contextmanager
def _open_repository() -> "Iterator[BackupRepository]":
    from cli.backup.repository import BackupRepository
    from infra.processes import raise_on_signals
    from services.settings import Settings

    logging.getLogger("opensearch").setLevel(logging.ERROR)  # the commands report the errors
    # Signals become exceptions: a closed terminal must not leave an index that is restored only in part.
    with raise_on_signals(), BackupRepository.of(Settings.read()) as store:
        yield store


def _print_message(message: str) -> None:
    typer.echo(message, err=True)


@app.command()
def create(
    keep: Annotated[
        int | None, typer.Option(min=1, help="keep this many of the newest backups and delete the others")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a backup of all indexes. Searches and writes continue.

    Example: sparsewell backup create --keep 14
    """
    with _open_repository() as store:
        backup = store.create(_print_message)
        removed = store.delete_older(keep) if keep else []
        if as_json:
            typer.echo(jsonlib.dumps(backup.as_json() | {"removed": removed}, indent=1))
            return
        typer.echo(backup.name)
        for name in removed:
            _print_message(f"Deleted {name}.")


@app.command("list")
def list_backups(as_json: JsonOption = False) -> None:
    """List the backups of this installation, the oldest first.

    Example: sparsewell backup list
    """
    with _open_repository() as store:
        rows = [backup.as_json() for backup in store.backups()]
        if as_json:
            typer.echo(jsonlib.dumps(rows, indent=1))
            return
        for row in rows:
            state = row["state"] if not row["failed_shards"] else f"{row['failed_shards']} shards failed"
            typer.echo(f"{row['name']}  {state:<12} {row['seconds']:>7} s  {', '.join(row['indexes'])}")


@app.command()
def verify(
    name: NameArgument = LATEST_BACKUP,
    restored: Annotated[
        bool,
        typer.Option("--restore", help="restore each index under another name, count its documents, and delete it"),
    ] = False,
) -> None:
    """Check that every node reaches the repository and that a backup is complete.

    Only --restore reads all data of the backup.

    Example: sparsewell backup verify latest --restore
    """
    from cli.backup.restore import try_restore

    with _open_repository() as store:
        backup = store.verify(name)
        typer.echo(f"{backup.name}: {backup.shards} shards of {', '.join(sorted(backup.generations))}")
        for index, counts in (try_restore(store, backup, _print_message) if restored else {}).items():
            typer.echo(f"{index}: {_format_counts(counts)}")


@app.command()
def delete(name: Annotated[str, typer.Argument(help="name of a backup")]) -> None:
    """Delete a backup.

    Example: sparsewell backup delete sparsewell-20261124-030000
    """
    with _open_repository() as store:
        store.remove(name)
    typer.echo(f"Deleted {name}.")


def restore(
    name: NameArgument = LATEST_BACKUP,
    index: Annotated[list[str] | None, typer.Option(help="index to restore; repeatable; default: everything")] = None,
    under: Annotated[str | None, typer.Option("--as", help="new name of the restored index; needs one --index")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="replace indexes that exist")] = False,
    documents_only: Annotated[
        bool, typer.Option("--documents-only", help="restore no rules, frequent queries, jobs or keys")
    ] = False,
) -> None:
    """Restore indexes from a backup. Existing indexes change only with --replace.

    Example: sparsewell restore latest --index books --as books-in-march
    """
    from cli.backup.restore import RestoreRequest, restore_backup

    with _open_repository() as store:
        request = RestoreRequest(tuple(index or ()), under, replace, documents_only)
        result = restore_backup(store, store.find(name), request, _print_message)
        for generation in result.generations:
            _print_message(
                f"{generation.index} needs the encoder {generation.encoder.name} ({generation.encoder.fingerprint})."
            )
        for restored, counts in result.documents.items():
            typer.echo(f"{restored}: {_format_counts(counts)}")


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in counts.items() if count) or "empty"
