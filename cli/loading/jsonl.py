"""One JSON object a line: as it is, or through a field map."""

import codecs
from collections.abc import Iterator
from pathlib import Path

import orjson

from cli.loading.field_map import EXPORTED_MEMBERS
from cli.loading.source import MAX_RECORD_BYTES, Make, Place, Row, file_identity, made
from services.content import lines, open_content
from services.errors import InvalidInput
from services.opensearch.generations import STATES


class JsonLines:
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

    def rows(self, start: Place, make: Make) -> Iterator[Row]:
        with open_content(self.path) as content:
            for number, line, end in lines(content, start.line, start.offset, MAX_RECORD_BYTES):
                self._read = content.raw.tell()
                yield Row(number, self._document(number, line, make), number, end)

    def _document(self, number: int, line: bytes | None, make: Make) -> bytes | InvalidInput | None:
        if line is None:
            return too_long()
        # (what some editors put before the first line to say that it is UTF-8)
        text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
        if not text:
            return None
        if not self.typed:
            return without_state(text)
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return InvalidInput("invalid_json", f"Not JSON in UTF-8: {error}")
        if not isinstance(value, dict):
            return InvalidInput("not_an_object", "A document is a JSON object with `id` and `text`.")
        return made(make, value)


def too_long() -> InvalidInput:
    """The refusal for what is not held in memory."""
    return InvalidInput("line_too_long", f"It has more than {MAX_RECORD_BYTES:,} bytes.")


def without_state(line: bytes) -> bytes:
    """A line that `export` wrote, without what is no part of the document; any other line as it is."""
    if b'"state"' not in line:
        return line
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line
    if not isinstance(value, dict) or value.get("state") not in STATES or "version" not in value:
        return line
    return orjson.dumps({name: content for name, content in value.items() if name not in EXPORTED_MEMBERS})
