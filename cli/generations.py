"""`sparsewell generations`: show, abort, roll back and drop generations of an index."""

import json as jsonlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from indexer.reindex.run import Reindexing
    from services.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Show, abort, roll back and drop the generations that sparsewell reindex builds and keeps.",
)

Index = Annotated[str, typer.Argument(help="name of the index")]


@contextmanager
def _work(index: str) -> "Iterator[tuple[Settings, Reindexing]]":
    from indexer.reindex.run import Reindexing
    from services.opensearch.client import SyncSearch
    from services.settings import Settings
    from services.telemetry.logs import configure_logging

    settings = Settings.read()
    configure_logging("generations", settings.log_format, "warning")
    search = SyncSearch(settings)
    try:
        work = Reindexing(search, settings, index)
        work.active()
        work.load()
        yield settings, work
    finally:
        search.close()


@app.command()
def show(index: Index, as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Show the generations of an index, their documents by state, and the progress of a reindex.

    Example: sparsewell generations show books
    """
    with _work(index) as (_, work):
        active, record = work.active(), work.record
        rows = [
            {
                "generation": one.number,
                "searched": one.physical == active.physical,
                "encoder": one.encoder.model_dump(),
                "created_at": one.created_at,
                "documents": work.counts(one),
            }
            for one in work.every_generation()
        ]
        step = None if record is None else {"step": record.step, "rollback": record.rollback, "carried": record.carried}
        if as_json:
            typer.echo(jsonlib.dumps({"index": index, "generations": rows, "reindex": step}, indent=1))
            return
        for one, row in zip(work.every_generation(), rows, strict=True):
            documents = ", ".join(f"{count:,} {state}" for state, count in row["documents"].items() if count)  # type: ignore[attr-defined]
            mark = "searched" if row["searched"] else "kept" if record and record.step == "swapped" else "building"
            typer.echo(
                f"{one.number:>4}  {mark:<9}{one.encoder.name} ({one.encoder.fingerprint})  {documents or 'empty'}"
            )
        if record is not None:
            way = "rollback" if record.rollback else "reindex"
            typer.echo(f"{way}: {record.step}, {record.carried:,} documents copied")


@app.command()
def abort(index: Index) -> None:
    """Abort a reindex before the swap and delete the new generation. The index does not change.

    Example: sparsewell generations abort books
    """
    with _work(index) as (_, work):
        work.abort()
    typer.echo("Aborted. The index has not changed.")


@app.command()
def drop(index: Index) -> None:
    """Delete the old generation that was kept for a rollback.

    Example: sparsewell generations drop books
    """
    with _work(index) as (_, work):
        work.drop_old()
    typer.echo("The kept generation is deleted.")


@app.command()
def rollback(
    index: Index,
    encode_here: Annotated[bool, typer.Option("--encode-here", help="encode in this process, without workers")] = False,
    patience: Annotated[
        float, typer.Option(min=1, help="seconds without progress before the command gives up")
    ] = 300.0,
    api: Annotated[
        str | None, typer.Option(help="address of the API that must have the query table; default: of the settings")
    ] = None,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="swap without checking the API's query table")] = False,
) -> None:
    """Return to the kept generation. Copies the changes since the swap to it first.

    Example: sparsewell generations rollback books
    """
    from rich.console import Console

    from cli.loading.display import Display
    from cli.reindexing.build import Build, known_with
    from services.opensearch.journal import days_ms, now_ms

    with _work(index) as (settings, work), Display(Console(stderr=True)) as progress:
        work.roll_back(now_ms() - days_ms(settings.tombstone_days))
        build = Build(work, settings, known_with(settings, None), progress, patience, encode_here)
        build.until_settled()
        if not unchecked:
            build.require_table(api)
        build.swap()
        typer.echo(f"{index}: generation {work.held.target.number} is searched again.")
