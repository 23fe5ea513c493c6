"""Markdown, plain text and HTML: a file is a document, its name the id."""

import codecs
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from cli.loading.delimited import not_utf8
from cli.loading.file_rows import FileRows
from cli.loading.formats import BY_SUFFIX, TEXTS, Format, format_of
from cli.loading.html import read_html
from cli.loading.markdown import read_markdown
from cli.loading.source import MAX_RECORD_BYTES, Make, made
from cli.loading.walking import Entry, shown, walk
from services.content import open_content, suffixes
from services.errors import ConfigurationError, InvalidInput


class TextFiles(FileRows):
    """A directory, or files that were named one by one. Lines count files.

    The id of a file in a directory is its path below it, that of a named file the path that was given.
    """

    typed = True

    def __init__(self, root: Path | None, files: Sequence[Path] = (), given: Format | None = None) -> None:
        """Looks at every file's size and time of change. Raises OSError."""
        self._format = given
        super().__init__(root, files)

    def _entries(self, skipped: Counter[str]) -> Iterator[Entry]:
        if self._root is not None:
            return walk(self._root, skipped, lambda path: BY_SUFFIX.get(suffixes(path)[0]) in TEXTS)
        return (Entry(shown(path.as_posix()), path) for path in self._files)

    def _document(self, entry: Entry, make: Make) -> bytes | InvalidInput:
        try:
            text = read_text(entry.path)
            match self._format or format_of(entry.path):
                case Format.markdown:
                    record = read_markdown(text)
                case Format.html:
                    record = read_html(text)
                case _:
                    record = {"text": text}
        except ConfigurationError as error:
            if error.code == "missing_library":
                raise
            return InvalidInput(error.code, error.detail)
        except InvalidInput as error:
            return error
        if not str(record["text"]).strip():
            return InvalidInput("empty_file", "It has no text.")
        return made(make, {**record, "id": entry.name})


def read_text(path: Path) -> str:
    """All of a file. Raises InvalidInput (`file_too_large`, `not_utf8`, `not_text`, `damaged_file`)."""
    with open_content(path) as content:
        data = content.stream.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise InvalidInput("file_too_large", f"It has more than {MAX_RECORD_BYTES:,} bytes.")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        begin = data.rfind(b"\n", 0, error.start) + 1
        end = data.find(b"\n", error.start)
        line = data[begin : end if end >= 0 else None]
        raise not_utf8(data.count(b"\n", 0, error.start) + 1, error.start - begin, line) from None
    if "\0" in text:
        raise InvalidInput("not_text", "It holds NUL bytes: not text, or not in UTF-8.")
    return text
