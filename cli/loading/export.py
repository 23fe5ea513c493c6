"""`sparsewell export`: write all documents of an index to JSONL or Parquet.

The API reads a point in time page by page, so the file has the documents as they were at the start. A file
gets its name when it is complete.
"""

import gzip
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Protocol, cast

import orjson
import typer

from cli.terminal import ApiOption, RetrySecondsOption, escape_json
from services.errors import BackendUnavailable, ConfigurationError, require_extra

if TYPE_CHECKING:
    import httpx

_JSON_COLUMNS = ("metadata", "segments", "chapters")


class ExportFormat(StrEnum):
    """The formats of an export."""

    jsonl = "jsonl"
    parquet = "parquet"


class ExportState(StrEnum):
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
    state: Annotated[list[ExportState] | None, typer.Option(help="only documents in this state; repeatable")] = None,
    format: Annotated[ExportFormat | None, typer.Option(help="format; default: by the file name")] = None,  # noqa: A002 (the name of the option)
    page: Annotated[int, typer.Option(min=1, max=10_000, help="maximum number of documents per request")] = 1000,
    api: ApiOption = None,
    retry_seconds: RetrySecondsOption = 300.0,
) -> None:
    """Write the documents of an index with id, title, text, metadata, version and state.

    `sparsewell load` reads the file, and with --create the declaration of the index, which FILE.declaration.json has.
    The file gets its name when it is complete. Exit status 1: an error, and no file.

    Example: sparsewell export books --output books.jsonl.gz
    """
    from rich.console import Console

    from cli.api_client import api_address, index_path, require_writable
    from cli.terminal import LoadDisplay
    from services.settings import Settings

    parquet = choose_format(output, format) is ExportFormat.parquet
    base, path = api_address(Settings.read(), api), f"{index_path(index)}/export"
    if output is not None:
        require_writable(output)
    parameters: dict[str, Any] = {"size": page, "vectors": vectors}
    if state:
        parameters["state"] = [value.value for value in state]
    exported = 0
    with LoadDisplay(Console(stderr=True)) as show:
        try:
            with open_writer(output, parquet=parquet, vectors=vectors) as writer:
                declaration = None if output is None else request_declaration(base, index, retry_seconds, show.report)
                for lines, trailer in iter_pages(base, path, parameters, retry_seconds, show.report):
                    if exported == 0:
                        show.begin("exporting", trailer["total"], unit="documents")
                    writer.write(lines)
                    exported += len(lines)
                    show.step(exported, trailer["total"], exported)
                require_complete_export(exported, trailer)
                if output is not None and declaration is not None:
                    _write_declaration(output, index, declaration)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader has closed the pipe. Discard the rest of the buffer.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
    typer.echo(f"{exported:,} documents{f' in {output}' if output else ''}", err=True)


def request_declaration(base: str, index: str, retry_seconds: float, report: Callable[[str], None]) -> dict[str, Any]:
    """Return the declaration of an index. Raises NotFound (`index_not_found`)."""
    from cli.api_client import connect_api, index_path, request_json
    from services.declarations import describe_declaration
    from services.retry import retry

    with connect_api(base, 60) as client:
        answer = retry(lambda: request_json(client, base, "GET", index_path(index)), retry_seconds, report)
    return describe_declaration(answer)


def _write_declaration(output: Path, index: str, declaration: Mapping[str, Any]) -> None:
    """Write the declaration file beside an export, before the export gets its name."""
    from services.declarations import declaration_path

    with write_atomically(declaration_path(output)) as out:
        out.write(orjson.dumps({"indexes": {index: declaration}}, option=orjson.OPT_INDENT_2) + b"\n")


def choose_format(output: Path | None, option: ExportFormat | None) -> ExportFormat:
    """Return the format of --format, or else of the file name. Raises ConfigurationError (`bad_output`)."""
    suffix = "" if output is None else output.suffix
    chosen = option or (ExportFormat.parquet if suffix == ".parquet" else ExportFormat.jsonl)
    if chosen is ExportFormat.parquet and (output is None or suffix == ".gz"):
        raise ConfigurationError("bad_output", "Parquet needs a file: --output FILE.parquet.")
    if suffix in (".bz2", ".xz", ".zst", ".zip"):
        raise ConfigurationError("bad_output", f"{output}: .gz is the only supported compression.")
    return chosen


def iter_pages(
    base: str, path: str, first: Mapping[str, Any], retry_seconds: float, report: Callable[[str], None]
) -> Iterator[tuple[list[bytes], dict[str, Any]]]:
    """Yield the documents and the trailer of each page. `first`: the parameters of the first request.

    Raises NotFound (`index_not_found`, `cursor_expired`) and, after `retry_seconds`, Overloaded or BackendUnavailable.
    """
    import httpx

    from cli.api_client import connect_api
    from services.retry import retry

    parameters = dict(first)
    with connect_api(base, httpx.Timeout(120, connect=5)) as client:
        while True:
            lines, trailer = retry(partial(_request_page, client, base, path, parameters), retry_seconds, report)
            yield lines, trailer
            if trailer["cursor"] is None:
                return
            parameters = {"size": first["size"], "cursor": trailer["cursor"]}


def _request_page(
    client: "httpx.Client", base: str, path: str, parameters: Mapping[str, Any]
) -> tuple[list[bytes], dict[str, Any]]:
    from cli.api_client import raise_unreachable, read_json_response

    with raise_unreachable(base):
        response = client.get(path, params=parameters)
    if not response.is_success:
        read_json_response(response)
    return read_page(response.content)


def read_page(content: bytes) -> tuple[list[bytes], dict[str, Any]]:
    """Split a page into documents and trailer. Raises BackendUnavailable (`export_cut`, which is retried)."""
    *lines, last, rest = content.split(b"\n") if content.endswith(b"\n") else (b"", b"")
    try:
        trailer = orjson.loads(last)["export"]
        if not rest and trailer["documents"] == len(lines):
            return lines, dict(trailer)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    raise BackendUnavailable("export_cut", "The API's answer ended before its last line.")


def require_complete_export(exported: int, trailer: Mapping[str, Any]) -> None:
    """Raise BackendUnavailable (`export_incomplete`) if documents of the point in time are missing."""
    if not exported == trailer["exported"] == trailer["total"]:
        raise BackendUnavailable(
            "export_incomplete", f"{exported:,} of {trailer['total']:,} documents were received: start again."
        )


class DocumentWriter(Protocol):
    """A writer of documents, given as lines of JSON."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Write a page of documents."""


@contextmanager
def open_writer(path: Path | None, *, parquet: bool, vectors: bool) -> Iterator[DocumentWriter]:
    """Yield a writer to a file, or to standard output without a path."""
    if path is None:
        yield JsonLinesWriter(sys.stdout.buffer, escapes=sys.stdout.isatty())
        sys.stdout.buffer.flush()
        return
    with write_atomically(path) as out:
        if parquet:
            with _open_parquet_writer(out, vectors=vectors) as table:
                yield table
        elif path.suffix == ".gz":
            with gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=6) as packed:
                yield JsonLinesWriter(cast(BinaryIO, packed))
        else:
            yield JsonLinesWriter(out)


class JsonLinesWriter:
    """A writer of the API's lines. With `escapes`, control characters are escaped, which a terminal would obey."""

    def __init__(self, out: BinaryIO, *, escapes: bool = False) -> None:
        self._out = out
        self._escapes = escapes

    def write(self, lines: Sequence[bytes]) -> None:
        """Write a page of documents."""
        if self._escapes:
            lines = [escape_json(line.decode()).encode() for line in lines]
        self._out.writelines(line + b"\n" for line in lines)


@contextmanager
def _open_parquet_writer(out: BinaryIO, *, vectors: bool) -> Iterator[DocumentWriter]:
    with require_extra("pyarrow", "read or write Parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    columns = [(name, pa.string()) for name in ("id", "title", "text", "metadata")]
    columns += [("version", pa.int64()), ("state", pa.string())]
    # Members of a talk. Its text is the text of its segments.
    columns += [(name, pa.string()) for name in ("kind", "description", "segments", "chapters", "url")]
    columns += [("duration", pa.float64())]
    if vectors:
        window = [("start", pa.int32()), ("end", pa.int32()), ("ids", pa.list_(pa.int32()))]
        window += [("pieces", pa.list_(pa.string())), ("weights", pa.list_(pa.float32()))]
        columns += [("encoder", pa.string()), ("windows", pa.list_(pa.struct(window)))]
    schema = pa.schema(columns)

    class Table:
        """A writer of one row group per page. Metadata is JSON text, because a field may be a value or a list."""

        def write(self, lines: Sequence[bytes]) -> None:
            """Write a page of documents."""
            rows = [_parquet_row(orjson.loads(line)) for line in lines]
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema))

    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        yield Table()


def _parquet_row(document: dict[str, Any]) -> dict[str, Any]:
    lists = {name: orjson.dumps(document[name]).decode() for name in _JSON_COLUMNS if name in document}
    return document | {"metadata": None} | lists


@contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that gets its name when it is complete and on disk. After an error the file is deleted.

    Raises ConfigurationError (`unwritable_file`).
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with scratch.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        scratch.replace(path)
    except OSError as error:
        raise ConfigurationError("unwritable_file", f"{path} cannot be written: {error.strerror}.") from None
    finally:
        scratch.unlink(missing_ok=True)
