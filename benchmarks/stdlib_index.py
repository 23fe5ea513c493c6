"""Texts that every machine has, Python's documentation and the committed questions about it, and an index of them."""

import random
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace

from benchmarks.filled_index import Encoded, create, encode, fill
from examples.stdlib.corpus import FIELDS, documents
from examples.stdlib.questions import questions
from services.documents import Document, joined_text
from services.index_spec import Generation, IndexSpec
from services.opensearch.client import SyncSearch
from services.opensearch.stored_windows import EncodedWindow
from services.settings import Settings

SPEC = IndexSpec.model_validate({"fields": FIELDS})


def stdlib_documents(count: int, seed: int = 1) -> list[Document]:
    """`count` documents, the same on every run of the same Python; with fewer than that in the library, all."""
    found = [Document(one["id"], one["text"], one["title"], one["metadata"]) for one in documents()]
    random.Random(seed).shuffle(found)
    return found[:count]


def everyday_questions() -> list[str]:
    """The questions' words."""
    return [question.text for question in questions()]


def encoded_stdlib(settings: Settings, count: int) -> list[Encoded]:
    """`count` documents of Python's documentation with their vectors, by the configured encoder."""
    from models.registry import load_encoder

    print(f"encoding {count:,} documents", flush=True)
    return list(encode(load_encoder(settings.encoder), stdlib_documents(count)))


def stdlib_index(settings: Settings, encoded: Iterable[Encoded], name: str = "stdlib") -> Generation:
    """An index of those documents."""
    with closing(SyncSearch(settings)) as search:
        generation = create(search, settings, name, SPEC)
        fill(search, settings, generation, encoded)
    return generation


def joined(encoded: Sequence[Encoded], parts: int) -> list[Encoded]:
    """As many long documents, each of `parts` neighbours with all their windows: long documents without encoding."""
    found: list[Encoded] = []
    for at, (first, _) in enumerate(encoded):
        text = ""
        windows: list[EncodedWindow] = []
        for document, some in (encoded[(at + step) % len(encoded)] for step in range(parts)):
            windows += [replace(one, start=one.start + len(text), end=one.end + len(text)) for one in some]
            text += f"{joined_text(document.title, document.text)}\n"
        found.append((Document(first.id, text, "", first.metadata), windows))
    return found
