"""A corpus without queries: documents as `sparsewell load` takes them, or a collection in BEIR's layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.training.json_lines import ReadReport, read_objects, text_of
from services.documents import Document
from services.errors import ConfigurationError, InvalidInput

_FILES = ("corpus.jsonl", "corpus.jsonl.gz", "corpus.jsonl.bz2", "corpus.jsonl.xz", "corpus.jsonl.zst")


def corpus_file(path: Path) -> Path:
    """The file itself, or the corpus.jsonl of a directory. Raises ConfigurationError (`corpus_not_found`)."""
    if path.is_dir():
        found = next((path / name for name in _FILES if (path / name).is_file()), None)
        if found is None:
            raise ConfigurationError("corpus_not_found", f"{path} has no corpus.jsonl (packed or not).")
        return found
    if not path.is_file():
        raise ConfigurationError(
            "corpus_not_found", f"There is no file {path}. A corpus is JSON lines with id, title and text."
        )
    return path


def read_corpus(path: Path, report: ReadReport | None = None) -> Iterator[Document]:
    """The documents of a file or directory, as a stream: {"id" or "_id", "title", "text"} a line.

    A document with a title only is its title. Lines that are none, have no text, or an id that came before, are
    counted in `report` and skipped. Raises ConfigurationError (`corpus_not_found`, `unreadable_file`), InvalidInput:
    `damaged_file`, and `no_documents` when no line is one.
    """
    file = corpus_file(path)
    report = ReadReport(str(file)) if report is None else report
    seen: set[str] = set()
    for number, record in read_objects(file, report):
        try:
            document = _document(record, number)
            if document.id in seen:
                raise InvalidInput("duplicate_id", f"the id {document.id[:80]!r} came before")
        except InvalidInput as error:
            report.refuse(number, error)
        else:
            seen.add(document.id)
            report.taken += 1
            yield document
    if not report.taken:
        raise InvalidInput(
            "no_documents",
            f'{file} has no documents: each line is {{"id": "...", "title": "...", "text": "..."}}. '
            + (f"The first lines: {'; '.join(report.examples)}." if report.examples else "The file is empty."),
        )


def _document(record: Mapping[str, Any], number: int) -> Document:
    title = text_of(record, "title", required=False)
    text = text_of(record, "text", required=not title)
    identifier = record.get("id", record.get("_id"))
    if identifier is not None and (isinstance(identifier, bool) or not isinstance(identifier, str | int)):
        raise InvalidInput("wrong_type", f"`id` is {type(identifier).__name__}, not a string")
    # (ids name documents in an index; what is learned does not need them)
    name = f"line {number}" if identifier in (None, "") else str(identifier)
    return Document(name, text, title) if text else Document(name, title)
