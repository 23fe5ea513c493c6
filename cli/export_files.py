"""The files of an export. A file gets its name when it is complete."""

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
    """A writer of documents, given as lines of JSON."""

    def write(self, lines: Sequence[bytes]) -> None: ...


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
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


@contextmanager
def open_writer(path: Path | None, *, parquet: bool, vectors: bool) -> Iterator[Writer]:
    """Yield a writer to a file, or to standard output without a path."""
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
    """A writer of JSONL, unchanged from the API."""

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
    # Members of talk. Its text is the text of its segments.
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
            rows = [_row(orjson.loads(line)) for line in lines]
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema))

    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        yield Table()


def _row(document: dict[str, Any]) -> dict[str, Any]:
    lists = {name: orjson.dumps(document[name]).decode() for name in _AS_JSON if name in document}
    return document | {"metadata": None} | lists
