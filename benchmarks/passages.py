"""Passages of encyclopaedia and preprints with their titles, cut to the same length, and their vectors from a cache.

The texts are not part of the project: the folder holds wikipedia_lead, wikipedia_body and arxiv_arxiver as .jsonl.gz,
one {"query": title, "passage": text} a line.
"""

import gzip
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from benchmarks.vector_files import load_vectors, save_vectors
from services.errors import ConfigurationError
from services.vectors import SparseVector

if TYPE_CHECKING:
    from models.encoder import Encoder
    from models.windows import Window

# Of each 100 passages; the first ones of each file.
SHARES = {"wikipedia_lead": 20, "wikipedia_body": 45, "arxiv_arxiver": 35}
# What is cut whole for the largest indexes: 541,000 stretches of 64 pieces.
WHOLE = (*SHARES, "arxiv_daily")
# Vectors of one cache file: what an interrupted run loses at most.
_SHARD = 2000


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage with its title and the file that it is from."""

    title: str
    text: str
    source: str


def passages(folder: Path, count: int, seed: int = 1) -> list[Passage]:
    """`count` passages in a fixed order in which the sources are mixed, so that any first part is mixed alike.

    Raises ConfigurationError (`benchmark_data_missing`) that names the file.
    """
    found: list[Passage] = []
    for source, share in SHARES.items():
        wanted = count * share // 100
        some = list(islice(_read(folder / f"{source}.jsonl.gz", source), wanted))
        if len(some) < wanted:
            raise ConfigurationError(
                "benchmark_data_missing", f"{source} has {len(some):,} passages and {wanted:,} are needed."
            )
        found += some
    random.Random(seed).shuffle(found)
    return found


def stretches(folder: Path, encoder: "Encoder", count: int, pieces: int, seed: int = 1) -> list[Passage]:
    """`count` stretches of at most `pieces` pieces: all that the passages of WHOLE are cut to, none twice, shuffled.

    Several stretches may share a title. Raises ConfigurationError (`benchmark_data_missing`).
    """
    found = [
        Passage(passage.title, passage.text[window.start : window.end].strip(), source)
        for source in WHOLE
        for passage in _read(folder / f"{source}.jsonl.gz", source)
        for window in encoder.windows(passage.text, pieces, 0)
    ]
    if len(found) < count:
        raise ConfigurationError(
            "benchmark_data_missing", f"The passages make {len(found):,} stretches and {count:,} are needed."
        )
    random.Random(seed).shuffle(found)
    return found[:count]


def _read(path: Path, source: str) -> Iterator[Passage]:
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
                yield Passage(pair["query"].strip(), text, source)


def first_windows(encoder: "Encoder", found: list[Passage], pieces: int) -> "list[Window]":
    """The first `pieces` pieces of each text, ending with a sentence where one ends near there."""
    return [encoder.windows(passage.text, pieces, 0)[0] for passage in found]


def cached_vectors(encoder: "Encoder", windows: "list[Window]", cache: Path | None) -> list[SparseVector]:
    """A vector a window. Files in `cache` save the next run the work; each belongs to the encoder and its windows."""
    vectors: list[SparseVector] = []
    begun = time.perf_counter()
    encoded = 0
    for start in range(0, len(windows), _SHARD):
        some = windows[start : start + _SHARD]
        path = cache / f"{_stamp(encoder, some)}.npz" if cache else None
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


def _stamp(encoder: "Encoder", windows: "list[Window]") -> str:
    """Same encoder and same pieces, same file."""
    checksum = hash(tuple(window.piece_ids for window in windows)) & 0xFFFFFFFFFFFF
    return f"passages-{encoder.fingerprint}-{len(windows)}-{checksum:012x}"
