"""`sparsewell indexes`: create the indexes that a file declares, and compare existing ones."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import httpx

    from cli.declared import Declaration

app = typer.Typer(no_args_is_help=True, help="Create and compare the indexes that a file declares.")

_ASK_AGAIN = 1.0


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help='JSON: {"indexes": {NAME: the body of PUT /v1/indexes/NAME}}')],
    check: Annotated[bool, typer.Option("--check", help="report differences and change nothing")] = False,
    reindex: Annotated[bool, typer.Option("--reindex", help="reindex an index that differs")] = False,
    wait: Annotated[float, typer.Option(min=0, help="seconds to wait for the API to be ready")] = 0,
    skip_unreachable: Annotated[
        bool, typer.Option("--skip-unreachable", help="with --check: succeed if the API is unavailable")
    ] = False,
    api_url: Annotated[str | None, typer.Option("--api", help="address of the API; default: of the settings")] = None,
) -> None:
    """Create the declared indexes that are missing. Exit status 1: an existing index differs.

    Documents and undeclared indexes do not change. A second run changes nothing.

    Example: sparsewell indexes apply indexes.json --check
    """
    from cli.api_answers import admin_headers, api_address, connect
    from cli.declared import read_declaration
    from services.errors import BackendUnavailable, ConfigurationError
    from services.settings import Settings

    if (check and reindex) or (skip_unreachable and not check):
        raise ConfigurationError("bad_options", "--check excludes --reindex, and --skip-unreachable needs --check.")
    declaration = read_declaration(file)
    settings = Settings.read()
    base = api_address(settings, api_url)
    with connect(base, 60) as client:
        client.headers.update(admin_headers(settings))
        try:
            _wait(client, base, wait)
            differing = _applied(client, base, declaration, check)
        except BackendUnavailable as error:
            if not skip_unreachable:
                raise
            typer.echo(f"Nothing was compared: {error}")
            return
    for index, members in differing.items():
        if not reindex:
            _tell(index, members)
            continue
        _reindex(index, members, base)
    if differing and not reindex:
        raise typer.Exit(1)


def _wait(client: "httpx.Client", base: str, seconds: float) -> None:
    """Wait until the API is ready. After `seconds`, raise its error or BackendUnavailable."""
    from services.errors import BackendUnavailable, EncoderMismatch

    end = time.monotonic() + seconds
    while seconds:
        try:
            _ask(client, base, "GET", "/readyz")
        except (BackendUnavailable, EncoderMismatch):
            if time.monotonic() > end:
                raise
            time.sleep(_ASK_AGAIN)
        else:
            return


def _applied(
    client: "httpx.Client", base: str, declaration: "Declaration", check: bool
) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Create missing indexes, unless `check`. Return the differing members of the others."""
    from cli.declared import differences

    there = {one["name"]: one for one in _ask(client, base, "GET", "/v1/indexes")["indexes"]}
    differing: dict[str, dict[str, tuple[Any, Any]]] = {}
    for index, wanted in declaration.indexes.items():
        if index not in there:
            if not check:
                _ask(client, base, "PUT", f"/v1/indexes/{index}", wanted.model_dump(exclude_unset=True))
            typer.echo(f"{index}: {'would be made' if check else 'made'}.")
        elif members := differences(wanted, there[index]):
            differing[index] = members
        else:
            typer.echo(f"{index}: as declared.")
    return differing


def _ask(client: "httpx.Client", base: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
    import httpx

    from cli.api_answers import away
    from services.web.answers import read_answer

    try:
        return read_answer(client.request(method, path, json=body))
    except httpx.HTTPError as error:
        raise away(base, error) from None


def _tell(index: str, members: dict[str, tuple[Any, Any]]) -> None:
    for name, (there, wanted) in members.items():
        typer.echo(f"{index}: {name} is {json.dumps(there)}, declared is {json.dumps(wanted)}.", err=True)
    typer.echo(f"{index}: differs. `sparsewell indexes apply --reindex` builds it as declared.", err=True)


def _reindex(index: str, members: dict[str, tuple[Any, Any]], base: str) -> None:
    from cli.declared import reindex_options
    from cli.reindex import reindex
    from services.known_encoders import known_encoders
    from services.settings import Settings

    options = reindex_options(index, members)
    if "encoder" in options:  # the API uses a name; the command takes other directories by their path
        known = {one.manifest.name: one.directory for one in known_encoders(Settings.read())}
        options["encoder"] = str(known.get(options["encoder"], options["encoder"]))
    reindex(index, **options, api=base)
