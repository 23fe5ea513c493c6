"""`sparsewell export`: write all documents of an index, as they were at the start, to a file."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import httpx


class ExportFormat(StrEnum):
    """The formats of an export."""

    jsonl = "jsonl"
    parquet = "parquet"


class State(StrEnum):
    """The states of documents."""

    pending = "pending"
    encoded = "encoded"
    dead = "dead"


def export(
    index: Annotated[str, typer.Argument(help="index to export")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="FILE.jsonl, FILE.jsonl.gz or FILE.parquet; default: standard output"),
    ] = None,
    vectors: Annotated[bool, typer.Option("--vectors", help="include ids, pieces and weights of each window")] = False,
    state: Annotated[list[State] | None, typer.Option(help="only documents in this state; repeatable")] = None,
    format: Annotated[ExportFormat | None, typer.Option(help="format; default: by the file name")] = None,  # noqa: A002
    page: Annotated[int, typer.Option(min=1, max=10_000, help="maximum number of documents per request")] = 1000,
    api: Annotated[str | None, typer.Option(help="address of the API; default: of the settings")] = None,
    patience: Annotated[float, typer.Option(min=0, help="seconds to wait for an unavailable service")] = 300.0,
) -> None:
    """Write the documents of an index with id, title, text, metadata, version and state.

    `sparsewell load` reads the file. The file gets its name when it is complete. Exit status 1: an error, and no file.

    Example: sparsewell export books --output books.jsonl.gz
    """
    from rich.console import Console

    from cli.api_answers import api_address, index_path
    from cli.export_files import open_writer
    from cli.loading.display import Display
    from cli.result_files import require_writable
    from services.settings import Settings

    parquet = chosen(output, format) is ExportFormat.parquet
    base, path = api_address(Settings.read(), api), f"{index_path(index)}/export"
    if output is not None:
        require_writable(output)
    first: dict[str, Any] = {"size": page, "vectors": vectors}
    if state:
        first["state"] = [one.value for one in state]
    exported = 0
    with Display(Console(stderr=True)) as show:
        try:
            with open_writer(output, parquet=parquet, vectors=vectors) as writer:
                for lines, told in pages(base, path, first, patience, show.say):
                    if exported == 0:
                        show.begin("exporting", told["total"], unit="documents")
                    writer.write(lines)
                    exported += len(lines)
                    show.step(exported, told["total"], exported)
                require_whole(exported, told)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # the reader has closed the pipe; discard the rest of the buffer
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
    typer.echo(f"{exported:,} documents{f' in {output}' if output else ''}", err=True)


def chosen(output: Path | None, given: ExportFormat | None) -> ExportFormat:
    """Return the format. Raises ConfigurationError (`bad_output`) for an unsupported file."""
    from services.errors import ConfigurationError

    last = "" if output is None else output.suffix
    found = given or (ExportFormat.parquet if last == ".parquet" else ExportFormat.jsonl)
    if found is ExportFormat.parquet and (output is None or last == ".gz"):
        raise ConfigurationError("bad_output", "Parquet needs a file: --output FILE.parquet.")
    if last in (".bz2", ".xz", ".zst", ".zip"):
        raise ConfigurationError("bad_output", f"{output}: .gz is the only supported compression.")
    return found


def pages(
    base: str, path: str, first: Mapping[str, Any], patience: float, say: Callable[[str], None]
) -> Iterator[tuple[list[bytes], dict[str, Any]]]:
    """Yield the documents and the last line of each page, until there is no cursor.

    Raises NotFound (`index_not_found`, `cursor_expired`) and, when patience ends, Overloaded or BackendUnavailable.
    """
    import httpx

    from cli.api_answers import connect
    from services.retry import retry

    asked = dict(first)
    with connect(base, httpx.Timeout(120, connect=5)) as client:
        while True:
            lines, told = retry(partial(_page, client, base, path, asked), patience, say)
            yield lines, told
            if told["cursor"] is None:
                return
            asked = {"size": first["size"], "cursor": told["cursor"]}


def _page(client: "httpx.Client", base: str, path: str, asked: Mapping[str, Any]) -> tuple[list[bytes], dict[str, Any]]:
    import httpx

    from cli.api_answers import away
    from services.web.answers import read_answer

    try:
        response = client.get(path, params=asked)
    except httpx.HTTPError as error:
        raise away(base, error) from None
    if not response.is_success:
        read_answer(response)
    return read_page(response.content)


def read_page(content: bytes) -> tuple[list[bytes], dict[str, Any]]:
    """A page that is whole. Raises BackendUnavailable (`export_cut`) for any other: it is asked for again."""
    import orjson

    from services.errors import BackendUnavailable

    *lines, last, rest = content.split(b"\n") if content.endswith(b"\n") else (b"", b"")
    try:
        told = orjson.loads(last)["export"]
        if not rest and told["documents"] == len(lines):
            return lines, dict(told)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    raise BackendUnavailable("export_cut", "The API's answer ended before its last line.")


def require_whole(exported: int, told: Mapping[str, Any]) -> None:
    """Raises BackendUnavailable (`export_incomplete`) when documents are missing that the snapshot has."""
    from services.errors import BackendUnavailable

    if not exported == told["exported"] == told["total"]:
        raise BackendUnavailable(
            "export_incomplete", f"{exported:,} of {told['total']:,} documents came: begin the export again."
        )
