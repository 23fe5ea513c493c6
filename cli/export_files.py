"""Files that an export is written to: under another name until they are whole."""

import gzip
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import orjson

from services.errors import ConfigurationError
from services.extra import needs

_AS_JSON = ("metadata", "segments", "chapters")


class Writer(Protocol):
    """Takes documents as lines of JSON."""

    def write(self, lines: Sequence[bytes]) -> None: ...


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file that has its name from the moment on at which it is whole and on disk; otherwise nothing is left of it.

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


@contextmanager
def open_writer(path: Path | None, *, parquet: bool, vectors: bool) -> Iterator[Writer]:
    """For a file, or for standard output when there is no path."""
    if path is None:
        yield Lines(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    with written(path) as out:
        if parquet:
            with _table(out, vectors=vectors) as table:
                yield table
        elif path.suffix == ".gz":
            with gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=6) as packed:
                yield Lines(cast(BinaryIO, packed))
        else:
            yield Lines(out)


class Lines:
    """JSONL as the API gave it."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, lines: Sequence[bytes]) -> None:
        self._out.writelines(line + b"\n" for line in lines)


@contextmanager
def _table(out: BinaryIO, *, vectors: bool) -> Iterator[Writer]:
    with needs("pyarrow", "read or write Parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    columns = [(name, pa.string()) for name in ("id", "title", "text", "metadata")]
    columns += [("version", pa.int64()), ("state", pa.string())]
    # of talk, whose text is that of its segments
    columns += [(name, pa.string()) for name in ("kind", "description", "segments", "chapters", "url")]
    columns += [("duration", pa.float64())]
    if vectors:
        window = [("start", pa.int32()), ("end", pa.int32()), ("ids", pa.list_(pa.int32()))]
        window += [("pieces", pa.list_(pa.string())), ("weights", pa.list_(pa.float32()))]
        columns += [("encoder", pa.string()), ("windows", pa.list_(pa.struct(window)))]
    schema = pa.schema(columns)

    class Table:
        """A row group a page. Metadata is JSON text, because a field may hold a value here and a list there."""

        def write(self, lines: Sequence[bytes]) -> None:
            rows = [_row(orjson.loads(line)) for line in lines]
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema))

    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        yield Table()


def _row(document: dict[str, Any]) -> dict[str, Any]:
    lists = {name: orjson.dumps(document[name]).decode() for name in _AS_JSON if name in document}
    return document | {"metadata": None} | lists
