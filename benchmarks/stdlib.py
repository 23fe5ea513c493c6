"""Texts that every machine has, Python's documentation and the committed questions about it, and an index of them.

The demo's corpus and questions in BEIR's layout, so that what measures collections measures them too.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.service import EncodedPair, create_index, encode_documents, fill_generation
from cli.relevance.collection import JudgedCollection, open_collection
from examples.stdlib.corpus import DECLARED_FIELDS, read_documents
from examples.stdlib.tally import read_questions
from services.documents.document import Document, joined_text
from services.index_spec import Generation, IndexSpec
from services.opensearch.client import SyncSearchClient
from services.opensearch.stored_document import EncodedWindow
from services.settings import Settings


def make_stdlib_collection(directory: Path) -> JudgedCollection:
    """Writes the collection to `directory`, unless it is there, and opens it. Every acceptable answer has grade 1."""
    if not (directory / "qrels.tsv").is_file():
        directory.mkdir(parents=True, exist_ok=True)
        asked = {str(number): question for number, question in enumerate(read_questions(), 1)}
        _write_lines(
            directory / "corpus.jsonl",
            ({"_id": d["id"], "title": d["title"], "text": d["text"]} for d in read_documents()),
        )
        _write_lines(directory / "queries.jsonl", ({"_id": number, "text": q.text} for number, q in asked.items()))
        lines = [f"{number}\t{name}\t1\n" for number, q in asked.items() for name in dict.fromkeys(q.answers + q.also)]
        (directory / "qrels.tsv").write_text("".join(lines), encoding="utf-8")
    return open_collection(directory)


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


STDLIB_SPEC = IndexSpec.model_validate({"fields": DECLARED_FIELDS})


def read_stdlib_documents(count: int, seed: int = 1) -> list[Document]:
    """`count` documents, the same on every run of the same Python; with fewer than that in the library, all."""
    found = [Document(one["id"], one["text"], one["title"], one["metadata"]) for one in read_documents()]
    random.Random(seed).shuffle(found)
    return found[:count]


def read_everyday_questions() -> list[str]:
    """The questions' words."""
    return [question.text for question in read_questions()]


def encode_stdlib(settings: Settings, count: int) -> list[EncodedPair]:
    """`count` documents of Python's documentation with their vectors, by the configured encoder."""
    from models.registry import load_encoder

    print(f"encoding {count:,} documents", flush=True)
    return list(encode_documents(load_encoder(settings.encoder), read_stdlib_documents(count)))


def fill_stdlib_index(settings: Settings, encoded: Iterable[EncodedPair], name: str = "stdlib") -> Generation:
    """An index of those documents."""
    with closing(SyncSearchClient(settings)) as search:
        generation = create_index(search, settings, name, STDLIB_SPEC)
        fill_generation(search, settings, generation, encoded)
    return generation


def join_documents(encoded: Sequence[EncodedPair], parts: int) -> list[EncodedPair]:
    """As many long documents, each of `parts` neighbours with all their windows: long documents without encoding."""
    found: list[EncodedPair] = []
    for at, (first, _) in enumerate(encoded):
        text = ""
        windows: list[EncodedWindow] = []
        for document, some in (encoded[(at + step) % len(encoded)] for step in range(parts)):
            windows += [replace(one, start=one.start + len(text), end=one.end + len(text)) for one in some]
            text += f"{joined_text(document.title, document.text)}\n"
        found.append((Document(first.id, text, "", first.metadata), windows))
    return found
