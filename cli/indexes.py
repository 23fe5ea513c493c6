"""`sparsewell indexes apply` and `sparsewell generations`: declared indexes and their generations.

`indexes apply` creates the indexes that a file declares and compares existing ones, through the API. `generations`
shows, aborts, rolls back and drops the generations that `sparsewell reindex` builds, directly in OpenSearch.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.reindex import EncodeHereOption, GenerationBuild, StallSecondsOption, TableApiOption, UncheckedOption
from cli.terminal import ApiOption

if TYPE_CHECKING:
    import httpx

    from indexer.reindex.run import Reindexing
    from services.declarations import Declaration
    from services.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Create and compare the indexes that a file declares.")
generations_app = typer.Typer(
    no_args_is_help=True,
    help="Show, abort, roll back and drop the generations that sparsewell reindex builds and keeps.",
)
IndexArgument = Annotated[str, typer.Argument(help="name of the index")]
_POLL_SECONDS = 1.0


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help='JSON: {"indexes": {NAME: the body of PUT /v1/indexes/NAME}}')],
    check: Annotated[bool, typer.Option("--check", help="report differences and change nothing")] = False,
    reindex: Annotated[bool, typer.Option("--reindex", help="reindex an index that differs")] = False,
    wait: Annotated[float, typer.Option(min=0, help="seconds to wait for the API to be ready")] = 0,
    skip_unreachable: Annotated[
        bool, typer.Option("--skip-unreachable", help="with --check: succeed if the API is unavailable")
    ] = False,
    api_url: ApiOption = None,
) -> None:
    """Create the declared indexes that are missing. Exit status 1: an existing index differs.

    Documents and undeclared indexes do not change. A second run changes nothing.

    Example: sparsewell indexes apply indexes.json --check
    """
    from cli.api_client import admin_headers, api_address, connect_api
    from services.declarations import read_declaration
    from services.errors import BackendUnavailable, ConfigurationError
    from services.settings import Settings

    if (check and reindex) or (skip_unreachable and not check):
        raise ConfigurationError("bad_options", "--check excludes --reindex, and --skip-unreachable needs --check.")
    declaration = read_declaration(file)
    settings = Settings.read()
    base = api_address(settings, api_url)
    with connect_api(base, 60) as client:
        client.headers.update(admin_headers(settings))
        try:
            _wait_until_ready(client, base, wait)
            differing = _apply_declaration(client, base, declaration, check)
        except BackendUnavailable as error:
            if not skip_unreachable:
                raise
            typer.echo(f"Nothing was compared: {error}")
            return
    for index, members in differing.items():
        if not reindex:
            _print_differences(index, members)
            continue
        _run_reindex(index, members, base)
    if differing and not reindex:
        raise typer.Exit(1)


@generations_app.command()
def show(index: IndexArgument, as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Show the generations of an index, their documents by state, and the progress of a reindex.

    Example: sparsewell generations show books
    """
    with _open_reindexing(index) as (_, work):
        active, record = work.active(), work.record
        rows = [
            {
                "generation": generation.number,
                "searched": generation.physical == active.physical,
                "encoder": generation.encoder.model_dump(),
                "created_at": generation.created_at,
                "documents": work.counts(generation),
            }
            for generation in work.every_generation()
        ]
        # `carried` is the former name of `copied`; the next version leaves it out.
        step = (
            None
            if record is None
            else {
                "step": record.step,
                "rollback": record.rollback,
                "copied": record.copied,
                "incompatible": record.incompatible,
                "carried": record.copied,
            }
        )
        if as_json:
            typer.echo(json.dumps({"index": index, "generations": rows, "reindex": step}, indent=1))
            return
        for generation, row in zip(work.every_generation(), rows, strict=True):
            documents = ", ".join(f"{count:,} {state}" for state, count in row["documents"].items() if count)  # type: ignore[attr-defined]  # the counts are a dictionary
            state = "searched" if row["searched"] else "kept" if record and record.step == "swapped" else "building"
            encoder = f"{generation.encoder.name} ({generation.encoder.fingerprint})"
            typer.echo(f"{generation.number:>4}  {state:<9}{encoder}  {documents or 'empty'}")
        if record is not None:
            operation = "rollback" if record.rollback else "reindex"
            typer.echo(f"{operation}: {record.step}, {record.copied:,} documents copied")


@generations_app.command()
def abort(index: IndexArgument) -> None:
    """Abort a reindex before the swap and delete the new generation. The index does not change.

    Example: sparsewell generations abort books
    """
    with _open_reindexing(index) as (_, work):
        work.abort()
    typer.echo("Aborted. The index has not changed.")


@generations_app.command()
def drop(index: IndexArgument) -> None:
    """Delete the old generation that was kept for a rollback.

    Example: sparsewell generations drop books
    """
    with _open_reindexing(index) as (_, work):
        work.drop_old()
    typer.echo("The kept generation is deleted.")


@generations_app.command()
def rollback(
    index: IndexArgument,
    encode_here: EncodeHereOption = False,
    stall_seconds: StallSecondsOption = 300.0,
    api: TableApiOption = None,
    unchecked: UncheckedOption = False,
) -> None:
    """Return to the kept generation. Copies the changes since the swap to it first.

    Example: sparsewell generations rollback books
    """
    from rich.console import Console

    from cli.terminal import LoadDisplay
    from services.dates import days_ms, now_ms
    from services.encoders.catalogue import load_known_encoders

    with _open_reindexing(index) as (settings, work), LoadDisplay(Console(stderr=True)) as progress:
        work.roll_back(now_ms() - days_ms(settings.tombstone_days))
        build = GenerationBuild(work, settings, load_known_encoders(settings), progress, stall_seconds, encode_here)
        build.until_caught_up()
        if not unchecked:
            build.require_table(api)
        build.swap()
        typer.echo(f"{index}: generation {work.current_record.target.number} is searched again.")


def _wait_until_ready(client: "httpx.Client", base: str, seconds: float) -> None:
    """Wait until the API is ready. After `seconds`, raise the error of the last attempt."""
    from cli.api_client import request_json
    from services.errors import BackendUnavailable

    end = time.monotonic() + seconds
    while seconds:
        try:
            request_json(client, base, "GET", "/readyz")
        except BackendUnavailable:
            if time.monotonic() > end:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return


def _apply_declaration(
    client: "httpx.Client", base: str, declaration: "Declaration", check: bool
) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Create missing indexes, unless `check`. Return (actual, declared) of each differing member by index and name."""
    from cli.api_client import request_json
    from services.declarations import find_differences

    existing = {info["name"]: info for info in request_json(client, base, "GET", "/v1/indexes")["indexes"]}
    differing: dict[str, dict[str, tuple[Any, Any]]] = {}
    for index, declared in declaration.indexes.items():
        if index not in existing:
            if not check:
                request_json(client, base, "PUT", f"/v1/indexes/{index}", json=declared.model_dump(exclude_unset=True))
            typer.echo(f"{index}: {'would be created' if check else 'created'}.")
        elif members := find_differences(declared, existing[index]):
            differing[index] = members
        else:
            typer.echo(f"{index}: as declared.")
    return differing


def _print_differences(index: str, members: dict[str, tuple[Any, Any]]) -> None:
    for name, (actual, declared) in members.items():
        typer.echo(f"{index}: {name} is {json.dumps(actual)}, declared is {json.dumps(declared)}.", err=True)
    typer.echo(f"{index}: differs. `sparsewell indexes apply --reindex` builds it as declared.", err=True)


def _run_reindex(index: str, members: dict[str, tuple[Any, Any]], base: str) -> None:
    from cli.reindex import reindex
    from services.declarations import reindex_options
    from services.encoders.catalogue import load_known_encoders
    from services.settings import Settings

    options = reindex_options(index, members)
    # The API names an encoder. The command takes a path for an encoder that is not shipped.
    if "encoder" in options:
        directories = {known.manifest.name: known.directory for known in load_known_encoders(Settings.read())}
        options["encoder"] = str(directories.get(options["encoder"], options["encoder"]))
    reindex(index, **options, api=base)


@contextmanager
def _open_reindexing(index: str) -> "Iterator[tuple[Settings, Reindexing]]":
    from indexer.reindex.run import Reindexing
    from services.opensearch.client import SyncSearchClient
    from services.settings import Settings
    from services.telemetry.logs import configure_logging

    settings = Settings.read()
    configure_logging("generations", settings.log_format, "warning")
    search = SyncSearchClient(settings)
    try:
        work = Reindexing(search, settings, index)
        work.active()
        work.load()
        yield settings, work
    finally:
        search.close()
