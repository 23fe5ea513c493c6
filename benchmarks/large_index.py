"""Half a million documents: stretches of real text with their real vectors, repeated beyond what was encoded."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.filled_index import Encoded
from benchmarks.passages import Passage, cached_vectors, first_windows, stretches
from models.registry import load_encoder
from services.documents import Document
from services.index_spec import IndexSpec
from services.opensearch.stored_windows import EncodedWindow

# A filter on one value of the field `part` leaves one document in a thousand.
PARTS = 1000
SPEC = IndexSpec.model_validate({"fields": {"part": "keyword"}})


def real_documents(
    encoder: str, folder: Path, count: int, pieces: int, cache: Path | None
) -> tuple[list[Passage], list[Encoded]]:
    """`count` stretches, and the documents that they make: `s0`, `s1` and so on."""
    loaded = load_encoder(encoder)
    found = stretches(folder, loaded, count, pieces)
    windows = first_windows(loaded, found, pieces)
    vectors = cached_vectors(loaded, windows, cache)
    return found, [
        (Document(f"s{number}", passage.text), [EncodedWindow(window.start, window.end, vector)])
        for number, (passage, window, vector) in enumerate(zip(found, windows, vectors, strict=True))
    ]


def repeated(real: Sequence[Encoded], count: int, seed: int = 1) -> Iterator[Encoded]:
    """The first `count` documents: the real ones, then again and again all of them, each time in another order.

    That keeps what the cost of a search depends on: the share of documents that hold a piece, how weights are spread,
    and the score that is needed to be among the best ten of so many. What it cannot have is the new words that new
    documents bring.
    """
    order = random.Random(seed)
    places = list(range(len(real)))
    for number in range(count):
        turn, at = divmod(number, len(real))
        if turn and not at:
            order.shuffle(places)
        document, windows = real[places[at]]
        name = f"{document.id}-{turn}" if turn else document.id
        yield replace(document, id=name, metadata={**document.metadata, "part": str(number % PARTS)}), windows


def real_name(name: str) -> str:
    """The document that one was repeated of."""
    return name.partition("-")[0]
