"""`sparsewell up`, `down`, `status` and `node`: run the service on this machine.

`up` starts OpenSearch, Redis, a worker, the sweeper and the API in the background (`infra.stack`). `node` starts and
stops only OpenSearch, without Docker (`infra.opensearch`).
"""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from infra.stack import Stack


node_app = typer.Typer(no_args_is_help=True, help="Start, stop and show a local OpenSearch node.")


def _print_message(message: str) -> None:
    typer.echo(message, err=True)


@node_app.command()
def start() -> None:
    """Start the node and wait until it is green. Fetches OpenSearch first if it is missing.

    Example: sparsewell node start
    """
    from infra.local_servers import LocalSettings
    from infra.opensearch import NodeConfig, start_node
    from services.settings import redact_addresses

    settings = LocalSettings.read()
    if settings.opensearch_url:
        _print_message(
            f"OPENSEARCH_URL is set: {redact_addresses(settings.opensearch_url)} is used, and no node starts."
        )
        return
    node = start_node(NodeConfig.of(settings), _print_message)
    typer.echo(node.url)


@node_app.command()
def stop() -> None:
    """Stop the node that `start` or `sparsewell up` started. Its data stays.

    Example: sparsewell node stop
    """
    from infra.local_servers import LocalSettings
    from infra.opensearch import Node, NodeConfig

    node = Node.find(NodeConfig.of(LocalSettings.read()).root)
    if node is None:
        _print_message("The local OpenSearch node does not run.")
        return
    node.stop()
    _print_message("OpenSearch is stopped. Its data stays.")


@node_app.command("status")
def node_status() -> None:
    """Print address, version and logs of the node as JSON. Exit status 3: it does not run.

    Example: sparsewell node status
    """
    from infra.local_servers import LocalSettings
    from infra.opensearch import Node, NodeConfig

    config = NodeConfig.of(LocalSettings.read())
    node = Node.find(config.root)
    if node is None:
        _print_message("The local OpenSearch node does not run.")
        raise typer.Exit(3)
    facts = {"url": node.url, "version": node.version, "java": node.java, "pid": node.child.pid}
    json.dump({**facts, "logs": str(config.root / "logs")}, sys.stdout, indent=1)
    typer.echo()


def _open_stack() -> "Stack":
    from infra.local_servers import LocalSettings
    from infra.stack import Stack
    from services.settings import Settings

    return Stack(LocalSettings.read(), Settings.read())


def up(
    wait: Annotated[bool, typer.Option(help="wait until the worker and the API are ready")] = True,
) -> None:
    """Start OpenSearch, Redis, a worker, the sweeper and the API in the background, unless they run.

    Example: sparsewell up
    """
    stack = _open_stack()
    if not stack.up(_print_message, wait=wait):
        _print_message("Everything runs already.")
    _print_message("The search page and the API (`make down` or `sparsewell down` stops all):")
    typer.echo(stack.api_url)


def down() -> None:
    """Stop the processes that `up` started. Data and logs stay.

    Example: sparsewell down
    """
    if not _open_stack().down(_print_message):
        _print_message("Nothing runs that `up` started.")


def status(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show each process with its address and log. Exit status 3: a process does not run.

    Example: sparsewell status --json
    """
    rows = _open_stack().status()
    if as_json:
        json.dump([row.__dict__ for row in rows], sys.stdout, indent=1)
        typer.echo()
    else:
        for row in rows:
            state = "external" if row.external else f"pid {row.pid}" if row.running else "not running"
            typer.echo(f"{row.name:<11}{state:<13}{row.where or '-':<34}{row.log}")
    if not all(row.running or row.external for row in rows):
        raise typer.Exit(3)
