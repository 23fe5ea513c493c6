"""Episodes with the vectors of their blocks, from a cache: encoding takes half an hour, dividing a minute."""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.vector_files import load_vectors, save_vectors
from models.chapters.episodes import Chaptered
from models.chapters.tiling.blocks import Block
from models.chapters.tiling.engine import block_vectors, cut_blocks
from models.encoder import Encoder
from services.vectors import SparseVector


@dataclass(frozen=True, slots=True)
class Encoded:
    """An episode, its blocks, and a vector of each."""

    one: Chaptered
    cut: Sequence[Block]
    vectors: Sequence[SparseVector]


def encoded(encoder: Encoder, episodes: Iterable[Chaptered], cache: Path | None) -> Iterator[Encoded]:
    """Files in `cache` save the next run the work; each belongs to the encoder, the text and how it is cut."""
    begun, blocks = time.perf_counter(), 0
    for number, one in enumerate(episodes, 1):
        cut = cut_blocks(one.episode)
        path = cache / f"{_stamp(encoder, one, cut)}.npz" if cache else None
        if path and path.is_file():
            yield Encoded(one, cut, load_vectors(path))
            continue
        vectors = block_vectors(encoder, one.episode.text, cut)
        if path:
            save_vectors(path, vectors)
        blocks += len(cut)
        if number % 20 == 0:
            print(f"  {number} episodes, {blocks / (time.perf_counter() - begun):.0f} blocks a second", flush=True)
        yield Encoded(one, cut, vectors)


def _stamp(encoder: Encoder, one: Chaptered, cut: Sequence[Block]) -> str:
    said = f"{encoder.fingerprint} {[block.start for block in cut]} {one.episode.text}"
    return f"blocks-{hashlib.sha256(said.encode()).hexdigest()[:24]}"
