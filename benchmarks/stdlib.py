"""Texts of Python's standard library, which every machine has: as documents, as an index, as a judged collection.

The questions are the demo's committed ones. The judged collection has BEIR's layout, so the benchmarks of collections
measure it too.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.service import EncodedPair, create_index, encode_documents, fill_generation
from examples.stdlib.corpus import DECLARED_FIELDS, read_documents
from examples.stdlib.results import read_questions
from models.judged_collection import JudgedCollection, open_collection
from services.documents.document import Document, joined_text
from services.index_spec import Generation, IndexSpec
from services.opensearch.client import SyncSearchClient
from services.opensearch.stored_document import EncodedWindow
from services.settings import Settings

STDLIB_SPEC = IndexSpec.model_validate({"fields": DECLARED_FIELDS})
# Shorter texts are a signature and one line.
MIN_CHARACTERS = 300


def read_stdlib_documents(count: int, seed: int = 1) -> list[Document]:
    """Return `count` documents, or all if there are fewer; the same in every run of the same Python."""
    documents = [Document(row["id"], row["text"], row["title"], row["metadata"]) for row in read_documents()]
    random.Random(seed).shuffle(documents)
    return documents[:count]


def read_everyday_questions() -> list[str]:
    """Return the texts of the demo's questions."""
    return [question.text for question in read_questions()]


def read_docstrings(number: int) -> list[tuple[str, str]]:
    """Return title and text of `number` documents of at least 300 characters, spread evenly over the library."""
    rows = [row for row in read_documents() if len(row["text"]) >= MIN_CHARACTERS]
    step = max(1, len(rows) // number)
    return [(row["title"], row["text"]) for row in islice(rows, 0, step * number, step)]


def encode_stdlib(settings: Settings, count: int) -> list[EncodedPair]:
    """Encode `count` documents with the configured encoder."""
    from models.registry import load_encoder

    print(f"encoding {count:,} documents", flush=True)
    return list(encode_documents(load_encoder(settings.encoder), read_stdlib_documents(count)))


def fill_stdlib_index(settings: Settings, encoded: Iterable[EncodedPair], name: str = "stdlib") -> Generation:
    """Create an index and fill it with the documents."""
    with closing(SyncSearchClient(settings)) as search:
        generation = create_index(search, settings, name, STDLIB_SPEC)
        fill_generation(search, settings, generation, encoded)
    return generation


def join_documents(encoded: Sequence[EncodedPair], parts: int) -> list[EncodedPair]:
    """Return as many long documents, each of `parts` neighbours with their windows, without encoding again."""
    joined: list[EncodedPair] = []
    for position, (first, _) in enumerate(encoded):
        text = ""
        windows: list[EncodedWindow] = []
        for document, own_windows in (encoded[(position + step) % len(encoded)] for step in range(parts)):
            windows += [replace(w, start=w.start + len(text), end=w.end + len(text)) for w in own_windows]
            text += f"{joined_text(document.title, document.text)}\n"
        joined.append((Document(first.id, text, "", first.metadata), windows))
    return joined


def make_stdlib_collection(directory: Path) -> JudgedCollection:
    """Write the collection to `directory` if it is not there, and open it. Each acceptable answer has grade 1."""
    if not (directory / "qrels.tsv").is_file():
        directory.mkdir(parents=True, exist_ok=True)
        questions = {str(number): question for number, question in enumerate(read_questions(), 1)}
        _write_lines(
            directory / "corpus.jsonl",
            ({"_id": d["id"], "title": d["title"], "text": d["text"]} for d in read_documents()),
        )
        _write_lines(directory / "queries.jsonl", ({"_id": number, "text": q.text} for number, q in questions.items()))
        lines = [
            f"{number}\t{name}\t1\n" for number, q in questions.items() for name in dict.fromkeys(q.answers + q.also)
        ]
        (directory / "qrels.tsv").write_text("".join(lines), encoding="utf-8")
    return open_collection(directory)


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
