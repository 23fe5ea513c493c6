"""Dense vectors of a collection, encoded once and kept in a file, one row a window."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cli.relevance.collection import Collection
from models.dense.model import DenseModel
from services.dense_form import DenseIdentity
from services.documents import joined_text

# Windows that are encoded between two words of progress.
_TOGETHER = 256


@dataclass(frozen=True, slots=True, eq=False)
class DenseRows:
    """Document i has the rows `starts[i]` to `starts[i + 1]` of `rows` float16 [windows, width]."""

    ids: list[str]
    starts: NDArray[np.int64]
    rows: NDArray[np.float16]

    def of(self, position: int) -> NDArray[np.float16]:
        """The windows of a document."""
        return self.rows[self.starts[position] : self.starts[position + 1]]


def collection_rows(
    collection: Collection, model: DenseModel, identity: DenseIdentity, cache: Path | None = None
) -> DenseRows:
    """The vectors that an index with this dense encoder would hold, unrounded; a file in `cache` saves the work."""
    corpus = collection.corpus.stat()
    window = identity.window
    stamp = f"{identity.fingerprint}-{window.pieces}-{window.overlap}-{corpus.st_size}-{corpus.st_mtime_ns}"
    path = cache / f"dense-{collection.name}-{stamp}.npz" if cache else None
    if path and path.is_file():
        with np.load(path, allow_pickle=False) as file:
            return DenseRows(file["ids"].tolist(), file["starts"], file["rows"])
    begun = time.perf_counter()
    documents = [document for document in collection.documents() if document.text]
    cut = [model.windows(joined_text(document.title, document.text), window) for document in documents]
    windows = [one for of_one in cut for one in of_one]
    rows = np.empty((len(windows), identity.width), dtype=np.float16)
    for start in range(0, len(windows), _TOGETHER):
        rows[start : start + _TOGETHER] = model.encode_windows(windows[start : start + _TOGETHER])
        print(f"\r{collection.name}: {start:,} of {len(windows):,} windows", end="", flush=True)
    print(f"\r{collection.name}: {len(windows):,} windows in {time.perf_counter() - begun:.0f} s")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(of_one) for of_one in cut])])
    found = DenseRows([document.id for document in documents], starts, rows)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, ids=np.array(found.ids, dtype=str), starts=starts, rows=rows)
    return found
