"""Half a million documents: stretches of real text with their real vectors, repeated beyond what was encoded.

Passages of encyclopaedia and preprints with their titles, cut to the same length, and their vectors from a cache.

The texts are not part of the project: the folder holds wikipedia_lead, wikipedia_body and arxiv_arxiver as .jsonl.gz,
one {"query": title, "passage": text} a line.
"""

import gzip
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from benchmarks.collections import load_vectors, save_vectors
from benchmarks.service import EncodedPair
from models.registry import load_encoder
from services.documents.document import Document
from services.encoders.vectors import SparseVector
from services.errors import ConfigurationError
from services.index_spec import IndexSpec
from services.opensearch.stored_document import EncodedWindow

if TYPE_CHECKING:
    from models.encoder import Encoder, TextWindow


# Of each 100 passages; the first ones of each file.
SOURCE_SHARES = {"wikipedia_lead": 20, "wikipedia_body": 45, "arxiv_arxiver": 35}
# What is cut whole for the largest indexes: 541,000 stretches of 64 pieces.
ALL_SOURCES = (*SOURCE_SHARES, "arxiv_daily")
# Vectors of one cache file: what an interrupted run loses at most.
_SHARD_VECTORS = 2000


@dataclass(frozen=True, slots=True)
class SourcePassage:
    """A passage with its title and the file that it is from."""

    title: str
    text: str
    source: str


def read_mixed_passages(folder: Path, count: int, seed: int = 1) -> list[SourcePassage]:
    """`count` passages in a fixed order in which the sources are mixed, so that any first part is mixed alike.

    Raises ConfigurationError (`benchmark_data_missing`) that names the file.
    """
    found: list[SourcePassage] = []
    for source, share in SOURCE_SHARES.items():
        wanted = count * share // 100
        some = list(islice(_read_passages(folder / f"{source}.jsonl.gz", source), wanted))
        if len(some) < wanted:
            raise ConfigurationError(
                "benchmark_data_missing", f"{source} has {len(some):,} passages and {wanted:,} are needed."
            )
        found += some
    random.Random(seed).shuffle(found)
    return found


def read_stretches(folder: Path, encoder: "Encoder", count: int, pieces: int, seed: int = 1) -> list[SourcePassage]:
    """`count` stretches of at most `pieces` pieces: all that the passages of WHOLE are cut to, none twice, shuffled.

    Several stretches may share a title. Raises ConfigurationError (`benchmark_data_missing`).
    """
    found = [
        SourcePassage(passage.title, passage.text[window.start : window.end].strip(), source)
        for source in ALL_SOURCES
        for passage in _read_passages(folder / f"{source}.jsonl.gz", source)
        for window in encoder.windows(passage.text, pieces, 0)
    ]
    if len(found) < count:
        raise ConfigurationError(
            "benchmark_data_missing", f"The passages make {len(found):,} stretches and {count:,} are needed."
        )
    random.Random(seed).shuffle(found)
    return found[:count]


def _read_passages(path: Path, source: str) -> Iterator[SourcePassage]:
    if not path.is_file():
        raise ConfigurationError(
            "benchmark_data_missing",
            f"There is no {path}: this benchmark needs texts that are not part of the project. "
            "Give the folder that holds them.",
        )
    seen: set[str] = set()
    with gzip.open(path, "rb") as lines:
        for line in lines:
            pair = orjson.loads(line)
            text = pair["passage"].strip()
            if text and text not in seen:
                seen.add(text)
                yield SourcePassage(pair["query"].strip(), text, source)


def cut_first_windows(encoder: "Encoder", found: list[SourcePassage], pieces: int) -> "list[TextWindow]":
    """The first `pieces` pieces of each text, ending with a sentence where one ends near there."""
    return [encoder.windows(passage.text, pieces, 0)[0] for passage in found]


def load_or_encode_vectors(encoder: "Encoder", windows: "list[TextWindow]", cache: Path | None) -> list[SparseVector]:
    """A vector a window. Files in `cache` save the next run the work; each belongs to the encoder and its windows."""
    vectors: list[SparseVector] = []
    begun = time.perf_counter()
    encoded = 0
    for start in range(0, len(windows), _SHARD_VECTORS):
        some = windows[start : start + _SHARD_VECTORS]
        path = cache / f"{_windows_fingerprint(encoder, some)}.npz" if cache else None
        if path and path.is_file():
            vectors += load_vectors(path)
            continue
        made = encoder.encode(some)
        if path:
            save_vectors(path, made)
        vectors += made
        encoded += len(made)
        speed = encoded / (time.perf_counter() - begun)
        print(f"  {len(vectors):,} of {len(windows):,} passages encoded, {speed:.0f} a second", flush=True)
    return vectors


def _windows_fingerprint(encoder: "Encoder", windows: "list[TextWindow]") -> str:
    """Same encoder and same pieces, same file."""
    checksum = hash(tuple(window.piece_ids for window in windows)) & 0xFFFFFFFFFFFF
    return f"passages-{encoder.fingerprint}-{len(windows)}-{checksum:012x}"


# A filter on one value of the field `part` leaves one document in a thousand.
PART_COUNT = 1000
PASSAGE_SPEC = IndexSpec.model_validate({"fields": {"part": "keyword"}})


def encode_stretches(
    encoder: str, folder: Path, count: int, pieces: int, cache: Path | None
) -> tuple[list[SourcePassage], list[EncodedPair]]:
    """`count` stretches, and the documents that they make: `s0`, `s1` and so on."""
    loaded = load_encoder(encoder)
    found = read_stretches(folder, loaded, count, pieces)
    windows = cut_first_windows(loaded, found, pieces)
    vectors = load_or_encode_vectors(loaded, windows, cache)
    return found, [
        (Document(f"s{number}", passage.text), [EncodedWindow(window.start, window.end, vector)])
        for number, (passage, window, vector) in enumerate(zip(found, windows, vectors, strict=True))
    ]


def repeat_documents(real: Sequence[EncodedPair], count: int, seed: int = 1) -> Iterator[EncodedPair]:
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
        yield replace(document, id=name, metadata={**document.metadata, "part": str(number % PART_COUNT)}), windows


def original_id(name: str) -> str:
    """The document that one was repeated of."""
    return name.partition("-")[0]
