"""`sparsewell up`, `down` and `status`: the whole service on this machine."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from infra.stack import Stack


def _say(message: str) -> None:
    typer.echo(message, err=True)


def _stack() -> "Stack":
    from infra.settings import LocalSettings
    from infra.stack import Stack
    from services.settings import Settings

    return Stack(LocalSettings.read(), Settings.read())


def up(
    wait: Annotated[bool, typer.Option(help="Return only once the worker and the API are ready.")] = True,
) -> None:
    """Start OpenSearch, Redis, a worker, the sweeper and the API in the background, where they do not run yet."""
    stack = _stack()
    if not stack.up(_say, wait=wait):
        _say("Everything runs already.")
    _say("The page and the API (sparsewell down stops everything):")
    typer.echo(stack.api_url)


def down() -> None:
    """Stop what `up` started; data and logs stay."""
    if not _stack().down(_say):
        _say("Nothing of ours is running.")


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what runs, where, and where its log is; exit status 3 when a part of ours does not run."""
    rows = _stack().status()
    if as_json:
        json.dump([row.__dict__ for row in rows], sys.stdout, indent=1)
        typer.echo()
    else:
        for row in rows:
            state = "external" if row.external else f"pid {row.pid}" if row.running else "not running"
            typer.echo(f"{row.name:<11}{state:<13}{row.where or '-':<34}{row.log}")
    if not all(row.running or row.external for row in rows):
        raise typer.Exit(3)
