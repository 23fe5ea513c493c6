"""The `sparsewell` command and its table of subcommands.

The modules of the subcommands import only typer and small modules. A subcommand imports its dependencies when it runs,
so that `--help` is quick.
"""

import importlib
import sys
from typing import Annotated

import typer

from cli.terminal import sanitise_line
from services.errors import SparsewellError

app = typer.Typer(
    name="sparsewell",
    help="Learned sparse search on OpenSearch, without a model on the query side.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on; 0 chooses a free port")] = None,
) -> None:
    """Serve the REST API and the search page.

    Example: sparsewell api --host 127.0.0.1 --port 8010
    """
    from cli.serve import serve_api

    serve_api(host, port)


# Name, module and function of each command.
_COMMANDS = (
    ("search", "cli.search", "search"),
    ("suggest", "cli.search", "suggest"),
    ("chapters", "cli.search", "chapters"),
    ("up", "cli.stack", "up"),
    ("down", "cli.stack", "down"),
    ("status", "cli.stack", "status"),
    ("worker", "cli.serve", "worker"),
    ("sweeper", "cli.serve", "sweeper"),
    ("adopt-redis", "cli.serve", "adopt_redis"),
    ("load", "cli.loading.load", "load"),
    ("export", "cli.loading.export", "export"),
    ("reindex", "cli.reindex", "reindex"),
    ("restore", "cli.backup.commands", "restore"),
    ("plan", "cli.plan", "plan"),
    ("demo", "cli.demo", "demo"),
    ("demo-talk", "cli.demo", "demo_talk"),
    ("openapi", "cli.serve", "openapi"),
)
for _name, _module, _function in _COMMANDS:
    app.command(_name)(getattr(importlib.import_module(_module), _function))
app.add_typer(importlib.import_module("cli.relevance.evaluate").evaluate_app, name="eval")
app.add_typer(importlib.import_module("cli.stack").node_app, name="node")
app.add_typer(importlib.import_module("cli.indexes").app, name="indexes")
app.add_typer(importlib.import_module("cli.indexes").generations_app, name="generations")
app.add_typer(importlib.import_module("cli.backup.commands").app, name="backup")
app.add_typer(importlib.import_module("cli.dead_letters").app, name="dead-letters")
app.add_typer(importlib.import_module("cli.dead_letters").former_app, name="dead")
app.add_typer(importlib.import_module("cli.curation").app, name="curation")
app.add_typer(importlib.import_module("cli.queries").app, name="queries")
app.add_typer(importlib.import_module("cli.keys").app, name="keys")
app.add_typer(importlib.import_module("cli.encoders").app, name="encoders")
app.add_typer(importlib.import_module("cli.train").app, name="train")
app.add_typer(importlib.import_module("cli.serve").models_app, name="models")


def main() -> None:
    """Run the command. Print an error as one line on standard error and exit with status 1."""
    try:
        app(standalone_mode=True)
    except SparsewellError as error:
        print(f"sparsewell: {sanitise_line(str(error))}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
