"""The windows of a collection's documents with their vectors, encoded once and kept in a file for the next run."""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cli.relevance.collection import Collection, CorpusDocument
from services.documents import joined_text
from services.opensearch.stored_windows import EncodedWindow
from services.vectors import SparseVector

if TYPE_CHECKING:
    from models.encoder import Encoder

Windows = dict[str, list[EncodedWindow]]

# Enough windows to sort by length, few enough that a long document's do not pile up.
_TOGETHER = 128


def collection_windows(collection: Collection, encoder: "Encoder", cache: Path | None = None) -> Windows:
    """The windows that a default index would hold of each document that has a text. Prints how far it is.

    A file in `cache` saves the next run the work. It belongs to the encoder's fingerprint, to how texts are cut (which
    the fingerprint leaves out), and to the corpus as it is now (size and time of change).
    """
    window = encoder.manifest.window
    corpus = collection.corpus.stat()
    made_by = f"{encoder.fingerprint}-{window.pieces}-{window.overlap}"
    stamp = f"windows-{collection.name}-{made_by}-{corpus.st_size}-{corpus.st_mtime_ns}"
    path = cache / f"{stamp}.npz" if cache else None
    if path and path.is_file():
        return read_windows(path)
    begun = time.perf_counter()
    found: Windows = {}
    for together in _batches((d for d in collection.documents() if d.text), _TOGETHER):
        cut = [encoder.windows(joined_text(d.title, d.text)) for d in together]
        vectors = iter(encoder.encode([piece for windows in cut for piece in windows]))
        for document, windows in zip(together, cut, strict=True):
            found[document.id] = [EncodedWindow(w.start, w.end, next(vectors)) for w in windows]
        print(f"\r{collection.name}: {len(found):,} documents encoded", end="", flush=True)
    print(f" in {time.perf_counter() - begun:.0f} s")
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_windows(path, found)
    return found


def _batches(documents: Iterable[CorpusDocument], size: int) -> Iterator[Sequence[CorpusDocument]]:
    some = iter(documents)
    while together := list(islice(some, size)):
        yield together


def write_windows(path: Path, found: Windows) -> None:
    """Keeps windows in a file."""
    windows = [window for of_one in found.values() for window in of_one]
    np.savez_compressed(
        path,
        names=np.array(list(found), dtype=str),
        counts=np.array([len(of_one) for of_one in found.values()], dtype=np.int64),
        spans=np.array([(w.start, w.end) for w in windows], dtype=np.int64).reshape(-1, 2),
        lengths=np.array([len(w.vector) for w in windows], dtype=np.int64),
        ids=np.concatenate([w.vector.ids for w in windows]),
        weights=np.concatenate([w.vector.weights for w in windows]),
    )


def read_windows(path: Path) -> Windows:
    """The inverse of `write_windows`."""
    with np.load(path, allow_pickle=False) as file:
        ends = np.cumsum(file["lengths"])[:-1]
        ids, weights = np.split(file["ids"], ends), np.split(file["weights"], ends)
        windows = iter(
            [
                EncodedWindow(int(start), int(end), SparseVector(i, w))
                for (start, end), i, w in zip(file["spans"], ids, weights, strict=True)
            ]
        )
        return {
            name: list(islice(windows, int(count)))
            for name, count in zip(file["names"].tolist(), file["counts"], strict=True)
        }
