"""`sparsewell node`: a local OpenSearch without Docker."""

import json
import sys

import typer

app = typer.Typer(no_args_is_help=True, help="Start, stop and show a local OpenSearch node.")


def _say(message: str) -> None:
    typer.echo(message, err=True)


@app.command()
def start() -> None:
    """Start the node and wait until it is green. Fetches OpenSearch first if it is missing.

    Example: sparsewell node start
    """
    from infra.opensearch import NodeConfig, start_node
    from infra.settings import LocalSettings
    from services.addresses import redacted

    settings = LocalSettings.read()
    if settings.opensearch_url:
        _say(f"OPENSEARCH_URL is set: {redacted(settings.opensearch_url)} is used, and no node starts.")
        return
    node = start_node(NodeConfig.of(settings), _say)
    typer.echo(node.url)


@app.command()
def stop() -> None:
    """Stop the node that `start` or `sparsewell up` started. Its data stays.

    Example: sparsewell node stop
    """
    from infra.opensearch import NodeConfig
    from infra.opensearch.node import find_node
    from infra.settings import LocalSettings

    node = find_node(NodeConfig.of(LocalSettings.read()).root)
    if node is None:
        _say("The local OpenSearch node does not run.")
        return
    node.stop()
    _say("OpenSearch is stopped. Its data stays.")


@app.command("status")
def status() -> None:
    """Print address, version and logs of the node as JSON. Exit status 3: it does not run.

    Example: sparsewell node status
    """
    from infra.opensearch import NodeConfig
    from infra.opensearch.node import find_node
    from infra.settings import LocalSettings

    config = NodeConfig.of(LocalSettings.read())
    node = find_node(config.root)
    if node is None:
        _say("The local OpenSearch node does not run.")
        raise typer.Exit(3)
    facts = {"url": node.url, "version": node.version, "java": node.java, "pid": node.child.pid}
    json.dump({**facts, "logs": str(config.root / "logs")}, sys.stdout, indent=1)
    typer.echo()
