"""A collection's vectors made in this process, to be searched exactly: what the live figures are held against."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from cli.relevance.collection import CorpusDocument
from services.documents import joined_text
from services.manifest import WindowSettings
from services.opensearch.stored_windows import EncodedWindow, document_vector
from services.vectors import SparseVector

if TYPE_CHECKING:
    from models.encoder import Encoder

# Enough windows to sort by length, few enough that vectors of windows never pile up.
_TOGETHER = 128


def document_vectors(
    encoder: "Encoder",
    documents: Iterable[CorpusDocument],
    window: WindowSettings,
    top_k: int,
    done: Callable[[int], object] = lambda count: None,
) -> dict[str, SparseVector]:
    """The vector of each document that has a text, as the indexer makes it; `done` hears how many are finished.

    Windows of `window`, at most `top_k` pieces a document; see IndexSpec for what an index uses.
    """
    found: dict[str, SparseVector] = {}
    for together in _batches((d for d in documents if d.text), _TOGETHER):
        cut = [encoder.windows(joined_text(d.title, d.text), window.pieces, window.overlap) for d in together]
        vectors = iter(encoder.encode([piece for windows in cut for piece in windows]))
        for document, windows in zip(together, cut, strict=True):
            encoded = [EncodedWindow(w.start, w.end, next(vectors)) for w in windows]
            found[document.id] = document_vector(encoded, top_k)
        done(len(found))
    return found


def _batches(documents: Iterator[CorpusDocument], size: int) -> Iterator[list[CorpusDocument]]:
    while together := list(islice(documents, size)):
        yield together
