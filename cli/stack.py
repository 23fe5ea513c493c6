"""`sparsewell up`, `down` and `status`: run the whole service on this machine."""

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
    wait: Annotated[bool, typer.Option(help="wait until the worker and the API are ready")] = True,
) -> None:
    """Start OpenSearch, Redis, a worker, the sweeper and the API in the background, unless they run.

    Example: sparsewell up
    """
    stack = _stack()
    if not stack.up(_say, wait=wait):
        _say("Everything runs already.")
    _say("The search page and the API (sparsewell down stops all):")
    typer.echo(stack.api_url)


def down() -> None:
    """Stop the processes that `up` started. Data and logs stay.

    Example: sparsewell down
    """
    if not _stack().down(_say):
        _say("Nothing runs that `up` started.")


def status(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show each process with its address and log. Exit status 3: a process does not run.

    Example: sparsewell status --json
    """
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
