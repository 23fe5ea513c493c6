"""Judged collections in BEIR's layout: corpus.jsonl (or .gz), queries.jsonl, qrels.tsv.

This is the one reader of queries and judgements, for evaluation, training, parity and the gate of a reindex. Both are
read into memory, and the corpus as a stream. An error names the file and the line.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.errors import ConfigurationError, InvalidInput

Judgements = dict[str, dict[str, int]]

_JUDGEMENT_FILES = ("qrels.tsv", "qrels/test.tsv", "qrels.txt", "qrels.trec")
_HEADERS = ({"query-id", "corpus-id", "score"}, {"qid", "did", "rel"}, {"query_id", "corpus_id", "score"})


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    """A document of the corpus. A title without text becomes the text."""

    id: str
    title: str
    text: str

    def as_json(self) -> dict[str, str]:
        """Return the document for the API."""
        return {"id": self.id, "text": self.text} | ({"title": self.title} if self.title else {})


@dataclass(frozen=True, slots=True)
class JudgedCollection:
    """Queries and judgements, and the path of the corpus."""

    name: str
    corpus: Path
    queries: dict[str, str]
    judgements: Judgements

    def documents(self) -> Iterator[CorpusDocument]:
        """Yield the documents in file order. Raises InvalidInput (`malformed_collection`) with file and line."""
        seen: set[str] = set()
        for line, record in _iter_records(self.corpus):
            document_id = _read_identifier(self.corpus, line, record)
            if document_id in seen:
                raise _malformed(self.corpus, line, f"the id {document_id[:80]!r} is repeated")
            seen.add(document_id)
            title, text = (_read_string(self.corpus, line, record, name) for name in ("title", "text"))
            yield CorpusDocument(document_id, title, text) if text else CorpusDocument(document_id, "", title)

    def is_own_document(self, document: CorpusDocument) -> bool:
        """Return whether a document is the query of the same id, as in ArguAna, where each query would find itself.

        The ids alone prove nothing: Cranfield numbers its queries and its documents from 1. The document must have the
        words of the query, and the query at least half of its length.
        """
        query = " ".join(self.queries.get(document.id, "").split())
        words = " ".join(f"{document.title} {document.text}".split())
        return bool(query) and query in words and 2 * len(query) >= len(document.text)

    @property
    def judged(self) -> dict[str, str]:
        """Return the queries that have judgements, by id. An evaluation sends these."""
        return {query: self.queries[query] for query in self.judgements if query in self.queries}

    def unknown_queries(self) -> list[str]:
        """Return the judged queries without a text. They are not sent and count in no figure."""
        return [query for query in self.judgements if query not in self.queries]

    def unknown_documents(self, known: set[str]) -> list[tuple[str, str]]:
        """Return the judgements (query, document) of documents that are not `known` in the corpus."""
        return [(query, d) for query, grades in self.judgements.items() for d in grades if d not in known]

    def known_judgements(self) -> Judgements:
        """Return the judgements of queries with a text. Judgements of absent documents stay and count as not found."""
        return {query: self.judgements[query] for query in self.judged}


def open_collection(directory: Path, queries: Path | None = None, judgements: Path | None = None) -> JudgedCollection:
    """Find the files of a collection and read queries and judgements.

    The default files are DIR/queries.jsonl, and those of `find_judgements`. Raises ConfigurationError
    (`collection_not_found`) for a missing file, and InvalidInput (`malformed_collection`) with file and line.
    """
    if not directory.is_dir():
        raise ConfigurationError("collection_not_found", f"There is no directory {directory}.")
    return JudgedCollection(
        directory.resolve().name,
        _find_corpus(directory, "corpus.jsonl", "corpus.jsonl.gz"),
        read_queries(queries or _find_corpus(directory, "queries.jsonl", "queries.jsonl.gz")),
        read_judgements(judgements or find_judgements(directory)),
    )


def find_judgements(directory: Path) -> Path:
    """Return DIR/qrels.tsv, BEIR's DIR/qrels/test.tsv, or TREC's DIR/qrels.txt or DIR/qrels.trec.

    Raises ConfigurationError (`collection_not_found`).
    """
    return _find_corpus(directory, *_JUDGEMENT_FILES)


def read_queries(path: Path) -> dict[str, str]:
    """Read the texts of queries by id. Raises InvalidInput (`malformed_collection`)."""
    queries: dict[str, str] = {}
    for line, record in _iter_records(path):
        query_id = _read_identifier(path, line, record)
        if query_id in queries:
            raise _malformed(path, line, f"the id {query_id[:80]!r} is repeated")
        queries[query_id] = _read_string(path, line, record, "text")
    if not queries:
        raise InvalidInput("malformed_collection", f"{path} has no queries.")
    return queries


def read_judgements(path: Path) -> Judgements:
    """Read grades by query and document.

    A line has query, document and grade, separated by tabs, below a header or not (BEIR); or query, an unused column,
    document and grade, separated by white space (TREC). A negative grade is read as 0, as trec_eval counts it. Raises
    InvalidInput (`malformed_collection`).
    """
    judgements: Judgements = {}
    for line, text in _iter_lines(path):
        columns = text.split("\t")
        if line == 1 and set(columns) in _HEADERS:
            continue
        if len(columns) != 3:
            words = text.split()
            if len(words) != 4:
                raise _malformed(
                    path,
                    line,
                    "expected query, document and grade separated by tabs, or the four columns of TREC, "
                    f"found {len(columns)}",
                )
            columns = [words[0], *words[2:]]
        query, document, grade = columns
        try:
            number = max(0, int(grade))
        except ValueError:
            raise _malformed(path, line, f"the grade {grade[:80]!r} is not a whole number") from None
        if judgements.setdefault(query, {}).setdefault(document, number) != number:
            raise _malformed(path, line, "the pair is repeated with another grade")
    if not judgements:
        raise InvalidInput("malformed_collection", f"{path} has no judgements.")
    return judgements


def _find_corpus(directory: Path, *names: str) -> Path:
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise ConfigurationError(
        "collection_not_found",
        f"{directory} has no {' or '.join(names)}; a collection is corpus.jsonl (or .gz), queries.jsonl and qrels.tsv.",
    )


def _iter_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers from 1."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
                except UnicodeDecodeError:
                    raise _malformed(path, number, "not UTF-8") from None
                if text.strip():
                    yield number, text
    except FileNotFoundError:
        raise ConfigurationError("collection_not_found", f"There is no file {path}.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput("malformed_collection", f"{path} cannot be read: {error}") from None


def _iter_records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, text in _iter_lines(path):
        try:
            record = json.loads(text)
        except ValueError as error:
            raise _malformed(path, number, f"not JSON ({error})") from None
        if not isinstance(record, dict):
            raise _malformed(path, number, "not a JSON object")
        yield number, record


def _read_identifier(path: Path, line: int, record: Mapping[str, Any]) -> str:
    value = record.get("_id")
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise _malformed(path, line, "no `_id` (a string)")
    return str(value)


def _read_string(path: Path, line: int, record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _malformed(path, line, f"`{name}` is not a string")
    return value if value.strip() else ""


def _malformed(path: Path, line: int, problem: str) -> InvalidInput:
    return InvalidInput("malformed_collection", f"{path}, line {line}: {problem}.")
