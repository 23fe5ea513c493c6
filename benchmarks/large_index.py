"""Large indexes of external texts: passages with titles, cut into stretches, encoded once, and repeated.

The texts are not part of the project. Their folder has wikipedia_lead, wikipedia_body, arxiv_arxiver and arxiv_daily as
.jsonl.gz, with one {"query": title, "passage": text} a line. Titles serve as queries. An index beyond the encoded
stretches repeats them, which keeps the properties that decide the cost of a search.
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


# Passages of each source in 100; the first passages of each file.
SOURCE_SHARES = {"wikipedia_lead": 20, "wikipedia_body": 45, "arxiv_arxiver": 35}
# Sources that are cut whole for the largest indexes: 541,000 stretches of 64 pieces.
ALL_SOURCES = (*SOURCE_SHARES, "arxiv_daily")
# A filter on one value of the field `part` leaves one document in a thousand.
PART_COUNT = 1000
PASSAGE_SPEC = IndexSpec.model_validate({"fields": {"part": "keyword"}})
# Vectors of one cache file; an interrupted run loses at most as many.
_SHARD_VECTORS = 2000


@dataclass(frozen=True, slots=True)
class SourcePassage:
    """Passage with its title and the name of its source file."""

    title: str
    text: str
    source: str


def read_mixed_passages(folder: Path, count: int, seed: int = 1) -> list[SourcePassage]:
    """Return `count` passages of all sources, mixed in a fixed order, so that every prefix has the same mix.

    Raises ConfigurationError (`benchmark_data_missing`) that names the file.
    """
    passages: list[SourcePassage] = []
    for source, share in SOURCE_SHARES.items():
        needed = count * share // 100
        batch = list(islice(_read_passages(folder / f"{source}.jsonl.gz", source), needed))
        if len(batch) < needed:
            raise ConfigurationError(
                "benchmark_data_missing", f"{source} has {len(batch):,} passages; {needed:,} are needed."
            )
        passages += batch
    random.Random(seed).shuffle(passages)
    return passages


def read_stretches(folder: Path, encoder: "Encoder", count: int, pieces: int, seed: int = 1) -> list[SourcePassage]:
    """Return `count` stretches of at most `pieces` pieces, shuffled: the passages of `ALL_SOURCES`, cut whole.

    Several stretches may have one title. Raises ConfigurationError (`benchmark_data_missing`).
    """
    stretches = [
        SourcePassage(passage.title, passage.text[window.start : window.end].strip(), source)
        for source in ALL_SOURCES
        for passage in _read_passages(folder / f"{source}.jsonl.gz", source)
        for window in encoder.windows(passage.text, pieces, 0)
    ]
    if len(stretches) < count:
        raise ConfigurationError(
            "benchmark_data_missing", f"The passages make {len(stretches):,} stretches; {count:,} are needed."
        )
    random.Random(seed).shuffle(stretches)
    return stretches[:count]


def _read_passages(path: Path, source: str) -> Iterator[SourcePassage]:
    if not path.is_file():
        raise ConfigurationError(
            "benchmark_data_missing",
            f"There is no {path}. This benchmark needs texts that are not part of the project. Name their folder.",
        )
    seen: set[str] = set()
    with gzip.open(path, "rb") as lines:
        for line in lines:
            pair = orjson.loads(line)
            text = pair["passage"].strip()
            if text and text not in seen:
                seen.add(text)
                yield SourcePassage(pair["query"].strip(), text, source)


def encode_stretches(
    encoder: str, folder: Path, count: int, pieces: int, cache: Path | None
) -> tuple[list[SourcePassage], list[EncodedPair]]:
    """Return `count` stretches, and their encoded documents with the ids `s0`, `s1` and so on."""
    loaded = load_encoder(encoder)
    stretches = read_stretches(folder, loaded, count, pieces)
    windows = cut_first_windows(loaded, stretches, pieces)
    vectors = load_or_encode_vectors(loaded, windows, cache)
    return stretches, [
        (Document(f"s{number}", passage.text), [EncodedWindow(window.start, window.end, vector)])
        for number, (passage, window, vector) in enumerate(zip(stretches, windows, vectors, strict=True))
    ]


def cut_first_windows(encoder: "Encoder", passages: list[SourcePassage], pieces: int) -> "list[TextWindow]":
    """Return the first `pieces` pieces of each text, up to the end of a sentence if one is near."""
    return [encoder.windows(passage.text, pieces, 0)[0] for passage in passages]


def load_or_encode_vectors(encoder: "Encoder", windows: "list[TextWindow]", cache: Path | None) -> list[SparseVector]:
    """Return a vector for each window. Files in `cache` keep them by encoder and windows for the next run."""
    vectors: list[SparseVector] = []
    started = time.perf_counter()
    count = 0
    for start in range(0, len(windows), _SHARD_VECTORS):
        shard = windows[start : start + _SHARD_VECTORS]
        path = cache / f"{_windows_fingerprint(encoder, shard)}.npz" if cache else None
        if path and path.is_file():
            vectors += load_vectors(path)
            continue
        encoded = encoder.encode(shard)
        if path:
            save_vectors(path, encoded)
        vectors += encoded
        count += len(encoded)
        speed = count / (time.perf_counter() - started)
        print(f"  {len(vectors):,} of {len(windows):,} passages encoded, {speed:.0f} a second", flush=True)
    return vectors


def _windows_fingerprint(encoder: "Encoder", windows: "list[TextWindow]") -> str:
    """Return the name of the cache file: the same for the same encoder and the same pieces."""
    checksum = hash(tuple(window.piece_ids for window in windows)) & 0xFFFFFFFFFFFF
    return f"passages-{encoder.fingerprint}-{len(windows)}-{checksum:012x}"


def repeat_documents(real: Sequence[EncodedPair], count: int, seed: int = 1) -> Iterator[EncodedPair]:
    """Yield `count` documents: the real ones, then all of them again and again, each time in another order.

    Repetition keeps the share of documents with a piece, the spread of weights, and the score that reaches the first
    ten. Only the new words of new documents are missing.
    """
    order = random.Random(seed)
    places = list(range(len(real)))
    for number in range(count):
        turn, position = divmod(number, len(real))
        if turn and not position:
            order.shuffle(places)
        document, windows = real[places[position]]
        name = f"{document.id}-{turn}" if turn else document.id
        yield replace(document, id=name, metadata={**document.metadata, "part": str(number % PART_COUNT)}), windows


def original_id(name: str) -> str:
    """Return the id of the document that a document repeats."""
    return name.partition("-")[0]


def choose_title_queries(passages: Sequence[SourcePassage], count: int, seed: int = 1) -> dict[str, list[str]]:
    """Return distinct titles by kind: short names (encyclopaedia) and long phrases (preprints)."""
    kinds = {
        "short": sorted({passage.title for passage in passages if passage.source.startswith("wikipedia")}),
        "long": sorted({passage.title for passage in passages if passage.source.startswith("arxiv")}),
    }
    return {kind: random.Random(seed).sample(titles, min(count, len(titles))) for kind, titles in kinds.items()}
