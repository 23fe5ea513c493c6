"""Sources whose documents are rows: JSON lines, Parquet, CSV and TSV.

JSON lines go to the service unchanged unless a field map is given. Parquet is read 64 rows at a time. CSV and TSV have
a header row, RFC 4180's quoting and UTF-8.
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
from services.documents.document import DOCUMENT_STATES
from services.errors import InvalidInput, require_extra
from services.text_encoding import detect_compression, detect_wide_encoding, guess_encoding

_BATCH_ROWS = 64
# Bytes of a column that are read at once. Without this limit, pyarrow reads the whole row group into memory.
_BUFFER_BYTES = 1024**2


class JsonLinesSource:
    """JSON lines. The service validates them, unless they are `mapped`: then each is parsed and mapped here."""

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
        # Some editors write a byte order mark before UTF-8.
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


def strip_export_members(line: bytes) -> bytes:
    """Remove the members that `sparsewell export` adds to a document. Other lines do not change."""
    if b'"state"' not in line:
        return line
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line
    if not isinstance(value, dict) or value.get("state") not in DOCUMENT_STATES or "version" not in value:
        return line
    return orjson.dumps({name: content for name, content in value.items() if name not in EXPORTED_MEMBERS})


def line_too_long() -> InvalidInput:
    """Return the refusal of a line that does not fit into memory."""
    return InvalidInput("line_too_long", f"The line has more than {MAX_RECORD_BYTES:,} bytes.")


class ParquetSource:
    """A Parquet file. Rows count from 1. Only used columns are read."""

    typed = True

    def __init__(self, path: Path) -> None:
        """Check for pyarrow. Raises ConfigurationError (`missing_library`)."""
        with require_extra("pyarrow", "read or write Parquet"):
            import pyarrow.parquet  # noqa: F401 (checks that it is installed)
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
        """Return the columns. Raises InvalidInput (`damaged_file`, `duplicate_column`)."""
        with self._open() as file:
            return require_distinct_columns(file.schema_arrow.names, self.name)

    def rows(self, start: SourcePosition, make: DocumentMaker) -> Iterator[SourceRow]:
        with self._open() as file:
            wanted = [
                name for name in require_distinct_columns(file.schema_arrow.names, self.name) if make.uses_column(name)
            ]
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
        except (ValueError, OverflowError) as error:  # a time out of Python's range, or text that is not UTF-8
            raise InvalidInput("damaged_file", f"{self.path} has a value that cannot be read: {error}.") from None
        for row in range(batch.num_rows):
            yield {name: values[row] for name, values in columns.items()}

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


class DelimitedSource:
    """A CSV or TSV file. A row has the number of its first line; a quoted field may contain line ends."""

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
        """Return the columns. Raises InvalidInput (`no_header`, `duplicate_column`, `not_utf8`)."""
        with open_content(self.path) as content:
            return self._header(content)[0]

    def rows(self, start: SourcePosition, make: DocumentMaker) -> Iterator[SourceRow]:
        with open_content(self.path) as content:
            names, header = self._header(content)
            begin = start if start.line else header
            feed = _LineFeed(content, begin.line, begin.offset)
            for number, fields in self._parsed(feed):
                self._read = content.raw.tell()
                yield SourceRow(number, _make_row_document(names, fields, make), feed.line, feed.offset)

    def _header(self, content: DecompressedFile) -> tuple[list[str], SourcePosition]:
        feed = _LineFeed(content, 0, 0)
        for _, fields in self._parsed(feed):
            if isinstance(fields, InvalidInput):
                raise InvalidInput(fields.code, f"{self.path}: the header: {fields.detail}")
            if not fields:
                continue
            names = require_distinct_columns([name.strip() for name in fields], self.name)
            return names, SourcePosition(line=feed.line, offset=feed.offset)
        raise InvalidInput("no_header", f"{self.path} is empty: its first row must name the columns.")

    def _parsed(self, feed: "_LineFeed") -> Iterator[tuple[int, list[str] | InvalidInput]]:
        csv.field_size_limit(MAX_RECORD_BYTES)
        reader = csv.reader(feed, delimiter=self._delimiter, strict=True)
        while True:
            feed.begin()
            try:
                fields: list[str] | InvalidInput = next(reader)
            except StopIteration:
                return
            except InvalidInput as error:
                fields = error
            except csv.Error as error:
                last = f" (read on to line {feed.line})" if feed.line > feed.first else ""
                # The parser's message for this error is about Python's open().
                reason = "a carriage return without a line feed" if "new-line" in str(error) else error
                fields = InvalidInput("bad_row", f"Not a row in RFC 4180's quoting: {reason}{last}.")
            yield feed.first, feed.fault or fields


class _LineFeed:
    """An iterator of decoded lines for the CSV parser, which takes the lines of one row at a time."""

    def __init__(self, content: DecompressedFile, line: int, offset: int) -> None:
        self._lines = read_lines(content, line, offset, MAX_RECORD_BYTES)
        self.line, self.offset, self.first = line, offset, line + 1
        self.fault: InvalidInput | None = None
        self._size = 0

    def begin(self) -> None:
        """Start a row with the next line."""
        self.first, self.fault, self._size = self.line + 1, None, 0

    def __iter__(self) -> "_LineFeed":
        return self

    def __next__(self) -> str:
        self.line, data, self.offset = next(self._lines)
        self._size += len(data or b"")
        if data is None or self._size > MAX_RECORD_BYTES:
            # The parser starts again at the next line, so an unclosed quote does not cost the rest of the file.
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


def _make_row_document(
    names: list[str], fields: list[str] | InvalidInput, make: DocumentMaker
) -> bytes | InvalidInput | None:
    if isinstance(fields, InvalidInput):
        return fields
    if not fields:
        return None
    if len(fields) != len(names):
        return InvalidInput("ragged_row", f"The row has {len(fields)} fields and the header {len(names)}.")
    return make_document(make, dict(zip(names, fields, strict=True)))


def _not_text(line: int, data: bytes) -> InvalidInput:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return not_utf8(line, 0, data)
    hint = describe_foreign_form(data) or "not text, or not in UTF-8"
    return InvalidInput("not_text", f"Line {line}, byte {data.index(0) + 1} is NUL: {hint}.")


def not_utf8(line: int, offset: int, data: bytes) -> InvalidInput:
    """Return the refusal of a byte that is not UTF-8. The message counts lines and bytes from 1."""
    byte = data[offset]
    hint = (
        describe_foreign_form(data)
        or f"it is probably {guess_encoding(byte)}, so convert the file, for example with iconv"
    )
    return InvalidInput("not_utf8", f"Line {line}, byte {offset + 1} is 0x{byte:02x}, which is not UTF-8: {hint}.")


def describe_foreign_form(begin: bytes) -> str | None:
    """Return what bytes are instead of UTF-8 if their beginning tells it, else None."""
    if (compression := detect_compression(begin)) is not None:
        return f"the file is {compression}-compressed, so give it the suffix of its compression or unpack it"
    if (wide := detect_wide_encoding(begin)) is not None:
        return f"it is {wide}, so convert the file, for example with iconv"
    return None
