"""Episodes with the vectors of their blocks, from a cache: encoding takes half an hour, dividing a minute."""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
            yield Encoded(one, cut, _load(path))
            continue
        vectors = block_vectors(encoder, one.episode.text, cut)
        if path:
            _save(path, vectors)
        blocks += len(cut)
        if number % 20 == 0:
            print(f"  {number} episodes, {blocks / (time.perf_counter() - begun):.0f} blocks a second", flush=True)
        yield Encoded(one, cut, vectors)


def _stamp(encoder: Encoder, one: Chaptered, cut: Sequence[Block]) -> str:
    said = f"{encoder.fingerprint} {[block.start for block in cut]} {one.episode.text}"
    return f"blocks-{hashlib.sha256(said.encode()).hexdigest()[:24]}"


def _save(path: Path, vectors: Sequence[SparseVector]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part.npz")
    np.savez(
        scratch,
        lengths=np.array([len(vector) for vector in vectors], dtype=np.int64),
        ids=np.concatenate([vector.ids for vector in vectors]),
        weights=np.concatenate([vector.weights for vector in vectors]),
    )
    scratch.replace(path)


def _load(path: Path) -> list[SparseVector]:
    with np.load(path, allow_pickle=False) as file:
        ends = np.cumsum(file["lengths"])[:-1]
        ids, weights = np.split(file["ids"], ends), np.split(file["weights"], ends)
    return [SparseVector(i, w) for i, w in zip(ids, weights, strict=True)]
