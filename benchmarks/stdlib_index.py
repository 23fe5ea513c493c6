"""Texts that every machine has, Python's documentation and the committed questions about it, and an index of them."""

import random
from contextlib import closing

from benchmarks.filled_index import create, encode, fill
from examples.stdlib.corpus import FIELDS, documents
from examples.stdlib.questions import questions
from services.documents import Document
from services.index_spec import Generation, IndexSpec
from services.opensearch.client import SyncSearch
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


def stdlib_index(settings: Settings, count: int) -> Generation:
    """An index of `count` documents of Python's documentation, encoded by the configured encoder."""
    from models.registry import load_encoder

    encoder = load_encoder(settings.encoder)
    with closing(SyncSearch(settings)) as search:
        generation = create(search, settings, "stdlib", SPEC)
        print(f"encoding {count:,} documents", flush=True)
        fill(search, settings, generation, encode(encoder, stdlib_documents(count)))
    return generation
