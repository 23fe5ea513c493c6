"""What files hold, and what their names say about it."""

from enum import StrEnum
from pathlib import Path

from services.content import suffixes
from services.errors import ConfigurationError


class Format(StrEnum):
    """What a file holds."""

    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"
    markdown = "markdown"
    html = "html"
    text = "text"


class Kind(StrEnum):
    """What the documents are, where the files do not say it."""

    talk = "talk"


TEXTS = (Format.markdown, Format.html, Format.text)  # a file is a document
ROWS = (Format.jsonl, Format.csv, Format.tsv, Format.parquet)


BY_SUFFIX = {
    ".jsonl": Format.jsonl,
    ".ndjson": Format.jsonl,
    ".json": Format.jsonl,
    ".csv": Format.csv,
    ".tsv": Format.tsv,
    ".tab": Format.tsv,
    ".parquet": Format.parquet,
    ".pq": Format.parquet,
    ".md": Format.markdown,
    ".markdown": Format.markdown,
    ".html": Format.html,
    ".htm": Format.html,
    ".xhtml": Format.html,
    ".txt": Format.text,
    ".text": Format.text,
}


def format_of(path: Path) -> Format:
    """Raises ConfigurationError (`unknown_format`)."""
    kind = BY_SUFFIX.get(suffixes(path)[0])
    if kind is None:
        known = ", ".join(BY_SUFFIX)
        raise ConfigurationError("unknown_format", f"{path}: say with --format what it holds (known endings: {known}).")
    return kind
