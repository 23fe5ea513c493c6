"""CSV and TSV with a header row, quoted as in RFC 4180, in UTF-8."""

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path

from cli.loading.jsonl import too_long
from cli.loading.source import MAX_RECORD_BYTES, Make, Place, Row, distinct, file_identity, made
from services.content import Content, lines, open_content
from services.errors import InvalidInput

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Delimited:
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

    def rows(self, start: Place, make: Make) -> Iterator[Row]:
        with open_content(self.path) as content:
            names, header = self._header(content)
            begin = start if start.line else header
            feed = _Feed(content, begin.line, begin.offset)
            for number, found in self._parsed(feed):
                self._read = content.raw.tell()
                yield Row(number, _document(names, found, make), feed.line, feed.offset)

    def _header(self, content: Content) -> tuple[list[str], Place]:
        feed = _Feed(content, 0, 0)
        for _, found in self._parsed(feed):
            if isinstance(found, InvalidInput):
                raise InvalidInput(found.code, f"{self.path}: the header: {found.detail}")
            if not found:
                continue
            names = distinct([name.strip() for name in found], self.name)
            return names, Place(line=feed.line, offset=feed.offset)
        raise InvalidInput("no_header", f"{self.path} is empty: its first row must name the columns.")

    def _parsed(self, feed: "_Feed") -> Iterator[tuple[int, list[str] | InvalidInput]]:
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


class _Feed:
    """Lines as text for the parser, which takes exactly those of one row at a time."""

    def __init__(self, content: Content, line: int, offset: int) -> None:
        self._lines = lines(content, line, offset, MAX_RECORD_BYTES)
        self.line, self.offset, self.first = line, offset, line + 1
        self.fault: InvalidInput | None = None
        self._size = 0

    def begin(self) -> None:
        """The next line is the first of a row."""
        self.first, self.fault, self._size = self.line + 1, None, 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        self.line, data, self.offset = next(self._lines)
        self._size += len(data or b"")
        if data is None or self._size > MAX_RECORD_BYTES:
            # the parser begins anew at the next line, so one quote that is never closed does not cost the whole file
            raise too_long()
        if self.line == 1:
            data = data.removeprefix(codecs.BOM_UTF8)
        if b"\0" in data and self.fault is None:
            self.fault = _no_text(self.line, data)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            self.fault = self.fault or not_utf8(self.line, error.start, data)
            return data.decode(errors="replace")


def _no_text(line: int, data: bytes) -> InvalidInput:
    if data.startswith(_UTF16):
        return not_utf8(line, 0, data)
    return InvalidInput("not_text", f"Line {line}, byte {data.index(0) + 1} is NUL: not text, or not in UTF-8.")


def not_utf8(line: int, at: int, data: bytes) -> InvalidInput:
    """The refusal for a byte that is no UTF-8; lines and bytes count from 1."""
    hint = "it begins as UTF-16 does" if data.startswith(_UTF16) else "convert the file, for example with iconv"
    return InvalidInput("not_utf8", f"Line {line}, byte {at + 1} is 0x{data[at]:02x}, which is not UTF-8: {hint}.")


def _document(names: list[str], found: list[str] | InvalidInput, make: Make) -> bytes | InvalidInput | None:
    if isinstance(found, InvalidInput):
        return found
    if not found:
        return None
    if len(found) != len(names):
        return InvalidInput("ragged_row", f"The row has {len(found)} fields and the header {len(names)}.")
    return made(make, dict(zip(names, found, strict=True)))
