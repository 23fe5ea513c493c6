"""CSV and TSV with a header row, quoted as in RFC 4180, in UTF-8.

One JSON object a line: as it is, or through a field map.

Parquet, by row groups and a few rows of them at a time.
"""

import codecs
import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from cli.loading.field_map import EXPORTED_MEMBERS
from cli.loading.source import (
    MAX_RECORD_BYTES,
    DocumentMaker,
    SourcePosition,
    SourceRow,
    file_identity,
    make_document,
    require_distinct_columns,
)
from services.documents.compressed_lines import DecompressedFile, open_content, read_lines, translate_read_errors
from services.errors import InvalidInput, require_extra
from services.opensearch.generations import DOCUMENT_STATES


class JsonLinesSource:
    """Lines are handed on as they are and judged by the service; `mapped`: each is decoded and mapped here."""

    def __init__(self, path: Path, *, mapped: bool) -> None:
        self.path = path
        self.name = str(path)
        self.size = path.stat().st_size
        self.typed = mapped
        self._read = 0

    def identity(self) -> str:
        return file_identity(self.path)

    def columns(self) -> None:
        return None

    def notes(self) -> list[str]:
        return []

    def read(self) -> int:
        return self._read

    def rows(self, start: SourcePosition, make: DocumentMaker) -> Iterator[SourceRow]:
        with open_content(self.path) as content:
            for number, line, end in read_lines(content, start.line, start.offset, MAX_RECORD_BYTES):
                self._read = content.raw.tell()
                yield SourceRow(number, self._document(number, line, make), number, end)

    def _document(self, number: int, line: bytes | None, make: DocumentMaker) -> bytes | InvalidInput | None:
        if line is None:
            return line_too_long()
        # (what some editors put before the first line to say that it is UTF-8)
        text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
        if not text:
            return None
        if not self.typed:
            return strip_export_members(text)
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return InvalidInput("invalid_json", f"Not JSON in UTF-8: {error}")
        if not isinstance(value, dict):
            return InvalidInput("not_an_object", "A document is a JSON object with `id` and `text`.")
        return make_document(make, value)


def line_too_long() -> InvalidInput:
    """The refusal for what is not held in memory."""
    return InvalidInput("line_too_long", f"It has more than {MAX_RECORD_BYTES:,} bytes.")


def strip_export_members(line: bytes) -> bytes:
    """A line that `export` wrote, without what is no part of the document; any other line as it is."""
    if b'"state"' not in line:
        return line
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line
    if not isinstance(value, dict) or value.get("state") not in DOCUMENT_STATES or "version" not in value:
        return line
    return orjson.dumps({name: content for name, content in value.items() if name not in EXPORTED_MEMBERS})


# Rows of a group that are turned into Python values together, and bytes that are read of a column at a time: without
# the second, a row group is held whole.
_BATCH_ROWS = 64
_BUFFER_BYTES = 1024**2


class ParquetSource:
    """A row is a document; rows count from 1. Only columns that go somewhere are read."""

    typed = True

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError (`missing_library`)."""
        with require_extra("pyarrow", "read or write Parquet"):
            import pyarrow.parquet  # noqa: F401
        self.path = path
        self.name = str(path)
        self.size = path.stat().st_size
        self._done = 0.0

    def identity(self) -> str:
        return file_identity(self.path)

    def notes(self) -> list[str]:
        return []

    def read(self) -> int:
        return int(self.size * self._done)

    def columns(self) -> list[str]:
        """Raises InvalidInput (`damaged_file`, `duplicate_column`)."""
        with self._open() as file:
            return require_distinct_columns(file.schema_arrow.names, self.name)

    def rows(self, start: SourcePosition, make: DocumentMaker) -> Iterator[SourceRow]:
        with self._open() as file:
            wanted = [name for name in require_distinct_columns(file.schema_arrow.names, self.name) if make.wants(name)]
            last = 0
            for group in range(file.metadata.num_row_groups):
                first, last = last, last + file.metadata.row_group(group).num_rows
                if last <= start.line:
                    continue
                number = first
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted):
                    if number + batch.num_rows <= start.line:
                        number += batch.num_rows
                        continue
                    for record in self._records(batch):
                        number += 1
                        if number > start.line:
                            yield SourceRow(number, make_document(make, record), number, 0)
                    self._done = number / max(1, file.metadata.num_rows)

    def _records(self, batch: Any) -> Iterator[dict[str, Any]]:
        try:
            columns = {name: _column_values(batch.column(name)) for name in batch.schema.names}
        except (ValueError, OverflowError) as error:  # a moment that Python has no name for, text that is none
            raise InvalidInput("damaged_file", f"{self.path} holds a value that cannot be read: {error}.") from None
        for at in range(batch.num_rows):
            yield {name: values[at] for name, values in columns.items()}

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with translate_read_errors(self.path):
            try:
                with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
                    yield file
            except pa.ArrowException as error:
                raise InvalidInput("damaged_file", f"{self.path} is damaged: {str(error)[:300]}.") from None


def _column_values(column: Any) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    values: list[Any] = column.to_pylist()
    return values


_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class DelimitedSource:
    """A row is a document. Its number is that of the line on which it begins; a quoted field may hold line ends."""

    typed = True

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path = path
        self.name = str(path)
        self.size = path.stat().st_size
        self._delimiter = delimiter
        self._read = 0

    def identity(self) -> str:
        return file_identity(self.path)

    def notes(self) -> list[str]:
        return []

    def read(self) -> int:
        return self._read

    def columns(self) -> list[str]:
        """Raises InvalidInput (`no_header`, `duplicate_column`, `not_utf8`)."""
        with open_content(self.path) as content:
            return self._header(content)[0]

    def rows(self, start: SourcePosition, make: DocumentMaker) -> Iterator[SourceRow]:
        with open_content(self.path) as content:
            names, header = self._header(content)
            begin = start if start.line else header
            feed = _LineFeed(content, begin.line, begin.offset)
            for number, found in self._parsed(feed):
                self._read = content.raw.tell()
                yield SourceRow(number, _make_row_document(names, found, make), feed.line, feed.offset)

    def _header(self, content: DecompressedFile) -> tuple[list[str], SourcePosition]:
        feed = _LineFeed(content, 0, 0)
        for _, found in self._parsed(feed):
            if isinstance(found, InvalidInput):
                raise InvalidInput(found.code, f"{self.path}: the header: {found.detail}")
            if not found:
                continue
            names = require_distinct_columns([name.strip() for name in found], self.name)
            return names, SourcePosition(line=feed.line, offset=feed.offset)
        raise InvalidInput("no_header", f"{self.path} is empty: its first row must name the columns.")

    def _parsed(self, feed: "_LineFeed") -> Iterator[tuple[int, list[str] | InvalidInput]]:
        csv.field_size_limit(MAX_RECORD_BYTES)
        reader = csv.reader(feed, delimiter=self._delimiter, strict=True)
        while True:
            feed.begin()
            try:
                found: list[str] | InvalidInput = next(reader)
            except StopIteration:
                return
            except InvalidInput as error:
                found = error
            except csv.Error as error:
                last = f" (read on to line {feed.line})" if feed.line > feed.first else ""
                # (the parser's own words for this one are about Python)
                why = "a carriage return without a line feed" if "new-line" in str(error) else error
                found = InvalidInput("bad_row", f"Not a row in RFC 4180's quoting: {why}{last}.")
            yield feed.first, feed.fault or found


class _LineFeed:
    """Lines as text for the parser, which takes exactly those of one row at a time."""

    def __init__(self, content: DecompressedFile, line: int, offset: int) -> None:
        self._lines = read_lines(content, line, offset, MAX_RECORD_BYTES)
        self.line, self.offset, self.first = line, offset, line + 1
        self.fault: InvalidInput | None = None
        self._size = 0

    def begin(self) -> None:
        """The next line is the first of a row."""
        self.first, self.fault, self._size = self.line + 1, None, 0

    def __iter__(self) -> "_LineFeed":
        return self

    def __next__(self) -> str:
        self.line, data, self.offset = next(self._lines)
        self._size += len(data or b"")
        if data is None or self._size > MAX_RECORD_BYTES:
            # the parser begins anew at the next line, so one quote that is never closed does not cost the whole file
            raise line_too_long()
        if self.line == 1:
            data = data.removeprefix(codecs.BOM_UTF8)
        if b"\0" in data and self.fault is None:
            self.fault = _not_text(self.line, data)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            self.fault = self.fault or not_utf8(self.line, error.start, data)
            return data.decode(errors="replace")


def _not_text(line: int, data: bytes) -> InvalidInput:
    if data.startswith(_UTF16):
        return not_utf8(line, 0, data)
    return InvalidInput("not_text", f"Line {line}, byte {data.index(0) + 1} is NUL: not text, or not in UTF-8.")


def not_utf8(line: int, at: int, data: bytes) -> InvalidInput:
    """The refusal for a byte that is no UTF-8; lines and bytes count from 1."""
    hint = "it begins as UTF-16 does" if data.startswith(_UTF16) else "convert the file, for example with iconv"
    return InvalidInput("not_utf8", f"Line {line}, byte {at + 1} is 0x{data[at]:02x}, which is not UTF-8: {hint}.")


def _make_row_document(
    names: list[str], found: list[str] | InvalidInput, make: DocumentMaker
) -> bytes | InvalidInput | None:
    if isinstance(found, InvalidInput):
        return found
    if not found:
        return None
    if len(found) != len(names):
        return InvalidInput("ragged_row", f"The row has {len(found)} fields and the header {len(names)}.")
    return make_document(make, dict(zip(names, found, strict=True)))
