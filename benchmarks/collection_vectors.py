"""Vectors of a collection, encoded once and kept in a file: several benchmarks want the same ones."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cli.relevance.collection import Collection
from cli.relevance.in_memory import document_vectors
from services.index_spec import IndexSpec
from services.vectors import SparseVector

if TYPE_CHECKING:
    from models.encoder import Encoder


def collection_vectors(
    collection: Collection, encoder: "Encoder", cache: Path | None = None
) -> dict[str, SparseVector]:
    """The vectors that a default index would hold. Prints how far it is; a file in `cache` saves the next run the work.

    The file belongs to the encoder's fingerprint, to how texts are cut and pruned (which the fingerprint leaves out),
    and to the corpus as it is now (size and time of change).
    """
    window = encoder.manifest.window
    top_k = IndexSpec.model_validate({}).document_top_k
    corpus = collection.corpus.stat()
    made_by = f"{encoder.fingerprint}-{window.pieces}-{window.overlap}-{top_k}"
    stamp = f"{collection.name}-{made_by}-{corpus.st_size}-{corpus.st_mtime_ns}"
    path = cache / f"{stamp}.npz" if cache else None
    if path and path.is_file():
        return _read(path)
    begun = time.perf_counter()

    def report(count: int) -> None:
        print(f"\r{collection.name}: {count:,} documents encoded", end="", flush=True)

    vectors = document_vectors(encoder, collection.documents(), window, top_k, report)
    print(f" in {time.perf_counter() - begun:.0f} s")
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path,
            names=np.array(list(vectors), dtype=str),
            lengths=np.array([len(v) for v in vectors.values()], dtype=np.int64),
            ids=np.concatenate([v.ids for v in vectors.values()]),
            weights=np.concatenate([v.weights for v in vectors.values()]),
        )
    return vectors


def _read(path: Path) -> dict[str, SparseVector]:
    with np.load(path, allow_pickle=False) as file:
        ends = np.cumsum(file["lengths"])[:-1]
        ids, weights = np.split(file["ids"], ends), np.split(file["weights"], ends)
        names = file["names"].tolist()
    return {name: SparseVector(i, w) for name, i, w in zip(names, ids, weights, strict=True)}
