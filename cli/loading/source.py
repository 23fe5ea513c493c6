"""What a load reads from: rows that know their place, cut into batches, whatever the format.

What files hold, and what their names say about it.

One document, line or file that was not accepted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from services.documents.compressed_lines import split_suffixes
from services.errors import ConfigurationError, InvalidInput


class FileFormat(StrEnum):
    """What a file holds."""

    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"
    markdown = "markdown"
    html = "html"
    text = "text"


class DocumentKind(StrEnum):
    """What the documents are, where the files do not say it."""

    talk = "talk"


TEXT_FORMATS = (FileFormat.markdown, FileFormat.html, FileFormat.text)  # a file is a document
ROW_FORMATS = (FileFormat.jsonl, FileFormat.csv, FileFormat.tsv, FileFormat.parquet)


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


def detect_format(path: Path) -> FileFormat:
    """Raises ConfigurationError (`unknown_format`)."""
    kind = FORMATS_BY_SUFFIX.get(split_suffixes(path)[0])
    if kind is None:
        known = ", ".join(FORMATS_BY_SUFFIX)
        raise ConfigurationError("unknown_format", f"{path}: say with --format what it holds (known endings: {known}).")
    return kind


@dataclass(frozen=True, slots=True)
class Refusal:
    """`line` counts from 1 in its file (rows of Parquet); None for a file that is one document.

    `file` names the file where a load reads more than one.
    """

    line: int | None
    id: str | None
    code: str
    reason: str
    file: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {"file": self.file, "line": self.line, "id": self.id, "code": self.code, "reason": self.reason}

    @property
    def where(self) -> str:
        """For people: the file when it is named, and the line."""
        line = "" if self.line is None else f"line {self.line}"
        return " ".join(part for part in (self.file, line) if part)

    @property
    def order(self) -> tuple[str, int]:
        """By file and line."""
        return self.file or "", self.line or 0


# No line, row or text file is held in memory beyond this: what the API takes of a talk by default, and eight times what
# it takes of another document, so what is refused here is refused there as well.
MAX_RECORD_BYTES = 8 * 1024**2

SourceRecord = Mapping[str, Any]


class DocumentMaker(Protocol):
    """Makes documents from the columns of rows."""

    def __call__(self, record: SourceRecord) -> bytes:
        """The JSON of a document. Raises InvalidInput."""

    def wants(self, column: str) -> bool:
        """Whether a column goes anywhere, so that one that does not need not be read."""


@dataclass(frozen=True, slots=True)
class SourcePosition:
    """Up to where a load is: whole sources, then lines and bytes of uncompressed content of the next one."""

    part: int = 0
    line: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One thing that a source holds: the JSON of a document, or why it is none, or None for what is blank.

    `line` is where it begins, `end_line` and `end_offset` are how far the source is dealt with after it.
    """

    line: int
    content: bytes | InvalidInput | None
    end_line: int
    end_offset: int
    file: str | None = None


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Lines with their numbers (from 1), blank ones left out; `end` is where the next batch begins.

    `read` counts the file's own bytes up to here, compressed ones where it is compressed. `refusals` are rows that
    never became a document. `files` names the file of each line, where lines are files.
    """

    lines: list[tuple[int, bytes]]
    end: SourcePosition
    read: int = -1
    refusals: list[Refusal] = field(default_factory=list)
    files: dict[int, str] = field(default_factory=dict)


class LoadSource(Protocol):
    """One argument of the command (or several text files of it)."""

    name: str
    size: int  # bytes on disk, for the bar
    typed: bool  # whether documents are made from columns, which takes the index's declared types

    def identity(self) -> str:
        """Changes when the content does."""

    def notes(self) -> list[str]:
        """What is to be said before it is read."""

    def columns(self) -> list[str] | None:
        """The columns that every row has; None where each row has its own. Raises InvalidInput, ConfigurationError."""

    def rows(self, start: SourcePosition, make: DocumentMaker) -> Iterator[SourceRow]:
        """Rows from a place on. Raises InvalidInput for a file that cannot be read on, ConfigurationError."""

    def read(self) -> int:
        """Bytes of `size` that were read so far."""


def file_identity(path: Path) -> str:
    """A file by its path, size and time of change. Raises OSError."""
    status = path.stat()
    return repr((str(path.resolve()), status.st_size, status.st_mtime_ns))


def require_distinct_columns(names: list[str], name: str) -> list[str]:
    """The names of columns. Raises InvalidInput (`duplicate_column`) when two are alike."""
    repeated = sorted(one for one, count in Counter(names).items() if one and count > 1)
    if repeated:
        raise InvalidInput("duplicate_column", f"{name} has two columns {repeated[0][:80]!r}: rename one.")
    return names


def make_document(make: DocumentMaker, record: SourceRecord) -> bytes | InvalidInput:
    """The JSON of a document, or the reason why there is none."""
    try:
        return make(record)
    except InvalidInput as error:
        return error


def read_batches(
    source: LoadSource, start: SourcePosition, make: DocumentMaker, max_documents: int, max_bytes: int
) -> Iterator[SourceBatch]:
    """Batches of at most `max_documents` lines and `max_bytes` (one line at least), from `start` on.

    The last batch may have no lines. A file that is damaged half-way ends with a refusal. Raises ConfigurationError
    (`unreadable_file`).
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
        # (refusals are bounded too: a file of another kind may have nothing else)
        held = len(batch.lines) + len(batch.refusals)
        if held and (held >= max_documents or size + length > max_bytes):
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
