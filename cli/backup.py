"""`sparsewell backup` and `sparsewell restore`: OpenSearch snapshots of all data of sparsewell."""

import json as jsonlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cli.backups.store import Store

app = typer.Typer(
    no_args_is_help=True, help="Make, list, verify and delete backups in a snapshot repository of OpenSearch."
)

Name = Annotated[str, typer.Argument(help="name of a backup, or latest")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
LATEST = "latest"


@contextmanager
def _store() -> "Iterator[Store]":
    from cli.backups.store import Store
    from infra.signals import signals_raise
    from services.settings import Settings

    logging.getLogger("opensearch").setLevel(logging.ERROR)  # errors of answers are reported by the commands
    # (closing the terminal must not leave an index half restored)
    with signals_raise(), Store.of(Settings.read()) as store:
        yield store


def _say(message: str) -> None:
    typer.echo(message, err=True)


@app.command()
def create(
    keep: Annotated[
        int | None, typer.Option(min=1, help="keep this many of the newest backups and delete the others")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a backup of all indexes. Searches and writes continue.

    Example: sparsewell backup create --keep 14
    """
    with _store() as store:
        made = store.take(_say)
        removed = store.keep(keep) if keep else []
        if as_json:
            typer.echo(jsonlib.dumps(made.as_json() | {"removed": removed}, indent=1))
            return
        typer.echo(made.name)
        for name in removed:
            _say(f"Deleted {name}.")


@app.command("list")
def list_backups(as_json: Json = False) -> None:
    """List the backups of this installation, the oldest first.

    Example: sparsewell backup list
    """
    with _store() as store:
        backups = [one.as_json() for one in store.backups()]
        if as_json:
            typer.echo(jsonlib.dumps(backups, indent=1))
            return
        for one in backups:
            state = one["state"] if not one["failed_shards"] else f"{one['failed_shards']} shards failed"
            typer.echo(f"{one['name']}  {state:<12} {one['seconds']:>7} s  {', '.join(one['indexes'])}")


@app.command()
def verify(
    name: Name = LATEST,
    restored: Annotated[
        bool,
        typer.Option("--restore", help="restore each index under another name, count its documents, and delete it"),
    ] = False,
) -> None:
    """Check that every node reaches the repository and that a backup is complete.

    Only --restore reads all data of the backup.

    Example: sparsewell backup verify latest --restore
    """
    from cli.backups.restoring import try_out

    with _store() as store:
        backup = store.verify(name)
        typer.echo(f"{backup.name}: {backup.shards} shards of {', '.join(sorted(backup.generations))}")
        for index, counts in (try_out(store, backup, _say) if restored else {}).items():
            typer.echo(f"{index}: {_counted(counts)}")


@app.command()
def delete(name: Annotated[str, typer.Argument(help="name of a backup")]) -> None:
    """Delete a backup.

    Example: sparsewell backup delete sparsewell-20261124-030000
    """
    with _store() as store:
        store.remove(name)
    typer.echo(f"Deleted {name}.")


def restore(
    name: Name = LATEST,
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
    from cli.backups.restoring import Wanted
    from cli.backups.restoring import restore as bring_back

    with _store() as store:
        backup = store.find(name)
        done = bring_back(store, backup, Wanted(tuple(index or ()), under, replace, documents_only), _say)
        for generation in done.generations:
            _say(f"{generation.index} needs the encoder {generation.encoder.name} ({generation.encoder.fingerprint}).")
        for one, counts in done.documents.items():
            typer.echo(f"{one}: {_counted(counts)}")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in counts.items() if count) or "empty"
