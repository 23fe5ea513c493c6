"""Sources of a load: the protocol of all formats, rows with their position, batches, refusals.

A source yields rows from a position on, so that a load can be resumed. `read_batches` groups rows by number and bytes.
Formats are found by the suffix of a file.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from services.documents.compressed_lines import split_suffixes
from services.errors import ConfigurationError, InvalidInput

# A longer line, row or text file is refused unread. The API's default limit is the same for a talk and an eighth for
# another document, so it would refuse it as well.
MAX_RECORD_BYTES = 8 * 1024**2


class FileFormat(StrEnum):
    """Formats of files."""

    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"
    markdown = "markdown"
    html = "html"
    text = "text"


class DocumentKind(StrEnum):
    """Kinds of documents for files that do not tell the kind."""

    talk = "talk"


TEXT_FORMATS = (FileFormat.markdown, FileFormat.html, FileFormat.text)  # a file is a document
ROW_FORMATS = (FileFormat.jsonl, FileFormat.csv, FileFormat.tsv, FileFormat.parquet)  # a row is a document
FORMATS_BY_SUFFIX = {
    ".jsonl": FileFormat.jsonl,
    ".ndjson": FileFormat.jsonl,
    ".json": FileFormat.jsonl,
    ".csv": FileFormat.csv,
    ".tsv": FileFormat.tsv,
    ".tab": FileFormat.tsv,
    ".parquet": FileFormat.parquet,
    ".pq": FileFormat.parquet,
    ".md": FileFormat.markdown,
    ".markdown": FileFormat.markdown,
    ".html": FileFormat.html,
    ".htm": FileFormat.html,
    ".xhtml": FileFormat.html,
    ".txt": FileFormat.text,
    ".text": FileFormat.text,
}
# Prefix of the columns of front matter whose names are members of a document.
FRONT_MATTER_PREFIX = "front_matter."
SourceRecord = Mapping[str, Any]


class DocumentMaker(Protocol):
    """A function that makes documents from the columns of rows."""

    def __call__(self, record: SourceRecord) -> bytes:
        """Return the JSON of a document. Raises InvalidInput."""

    def uses_column(self, column: str) -> bool:
        """Tell whether documents use a column. A source need not read other columns."""


@dataclass(frozen=True, slots=True)
class SourcePosition:
    """A position in the sources: `part` complete sources, then lines and uncompressed bytes of the next source."""

    part: int = 0
    line: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row of a source: the JSON of a document, or the reason of its refusal, or None for a blank line.

    The row begins at `line`. `end_line` and `end_offset` are the position after it.
    """

    line: int
    content: bytes | InvalidInput | None
    end_line: int
    end_offset: int
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document, line or file that was not accepted.

    `line` counts lines (rows of Parquet) from 1; it is None for a file that is one document. `file` is set if a load
    reads several files.
    """

    line: int | None
    id: str | None
    code: str
    reason: str
    file: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the line of the file of --rejected."""
        return {"file": self.file, "line": self.line, "id": self.id, "code": self.code, "reason": self.reason}

    @property
    def where(self) -> str:
        """Return file and line as text."""
        line = "" if self.line is None else f"line {self.line}"
        return " ".join(part for part in (self.file, line) if part)

    @property
    def order(self) -> tuple[str, int]:
        """Return the sort key by file and line."""
        return self.file or "", self.line or 0


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Documents with their line numbers (from 1), without blank lines. The next batch begins at `end`.

    `read` counts bytes of the file on disk (compressed bytes of a compressed file) up to here. `refusals` are rows
    that did not become documents. `files` maps lines to files, if lines are files.
    """

    lines: list[tuple[int, bytes]]
    end: SourcePosition
    read: int = -1
    refusals: list[Refusal] = field(default_factory=list)
    files: dict[int, str] = field(default_factory=dict)


class LoadSource(Protocol):
    """An argument of the command, or several text files of it."""

    name: str
    size: int  # bytes on disk, for the progress bar
    typed: bool  # documents are made from columns, with the field types that the index declares

    def identity(self) -> str:
        """Return a text that changes with the content."""

    def notes(self) -> list[str]:
        """Return messages to print before the source is read."""

    def columns(self) -> list[str] | None:
        """Return the columns, or None if each row has its own. Raises InvalidInput, ConfigurationError."""

    def rows(self, start: SourcePosition, make: DocumentMaker) -> Iterator[SourceRow]:
        """Yield the rows from a position on. Raises InvalidInput for a damaged file, ConfigurationError."""

    def read(self) -> int:
        """Return the number of bytes of `size` that were read so far."""


def read_batches(
    source: LoadSource, start: SourcePosition, make: DocumentMaker, max_documents: int, max_bytes: int
) -> Iterator[SourceBatch]:
    """Yield batches of at most `max_documents` lines and `max_bytes` (but at least one line), from `start` on.

    The last batch may have no lines. A damaged file ends with a refusal. Raises ConfigurationError (`unreadable_file`).
    """
    batch, size, end = SourceBatch([], start), 0, start
    rows = source.rows(start, make)
    while True:
        try:
            row = next(rows, None)
        except InvalidInput as error:
            row = None
            batch.refusals.append(_make_refusal(end.line + 1, error))
        if row is None:
            yield replace(batch, end=end, read=source.size)
            return
        length = len(row.content) if isinstance(row.content, bytes) else 0
        # Refusals count too: a file of a wrong format may have nothing else.
        count = len(batch.lines) + len(batch.refusals)
        if count and (count >= max_documents or size + length > max_bytes):
            yield replace(batch, end=end, read=source.read())
            batch, size = SourceBatch([], end), 0
        end = SourcePosition(start.part, row.end_line, row.end_offset)
        if isinstance(row.content, bytes):
            batch.lines.append((row.line, row.content))
            if row.file is not None:
                batch.files[row.line] = row.file
            size += length
        elif row.content is not None:
            batch.refusals.append(_make_refusal(row.line, row.content, row.file))


def _make_refusal(line: int, error: InvalidInput, file: str | None = None) -> Refusal:
    return Refusal(line if file is None else None, error.extra.get("id"), error.code, error.detail, file)


def detect_format(path: Path) -> FileFormat:
    """Return the format of a file by its suffix. Raises ConfigurationError (`unknown_format`)."""
    file_format = FORMATS_BY_SUFFIX.get(split_suffixes(path)[0])
    if file_format is None:
        known = ", ".join(FORMATS_BY_SUFFIX)
        raise ConfigurationError(
            "unknown_format", f"{path} has no known suffix: give its --format (known suffixes: {known})."
        )
    return file_format


def file_identity(path: Path) -> str:
    """Return path, size and modification time of a file as text. Raises OSError."""
    status = path.stat()
    return repr((str(path.resolve()), status.st_size, status.st_mtime_ns))


def require_distinct_columns(names: list[str], name: str) -> list[str]:
    """Return the column names unchanged. Raises InvalidInput (`duplicate_column`)."""
    repeated = sorted(column for column, count in Counter(names).items() if column and count > 1)
    if repeated:
        raise InvalidInput("duplicate_column", f"{name} has two columns {repeated[0][:80]!r}: rename one.")
    return names


def make_document(make: DocumentMaker, record: SourceRecord) -> bytes | InvalidInput:
    """Return the JSON of a document, or the error of its columns."""
    try:
        return make(record)
    except InvalidInput as error:
        return error
