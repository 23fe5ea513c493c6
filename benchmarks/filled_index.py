"""An index as the service makes it, filled with encoded documents without going through the queue."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from services.documents import Document, joined_text
from services.errors import BackendUnavailable
from services.index_spec import Generation, IndexSpec, Names
from services.manifest import read_manifest, resolve
from services.opensearch.bulk import Outcome, Write, write
from services.opensearch.client import SyncSearch
from services.opensearch.generations import create_call, new_generation, refresh_call
from services.opensearch.journal import Stored, encoded_write, raw_write
from services.opensearch.stored_windows import EncodedWindow
from services.settings import Settings

if TYPE_CHECKING:
    from models.encoder import Encoder

_TOGETHER = 128
_SECONDS = 120.0

Encoded = tuple[Document, Sequence[EncodedWindow]]


def create(search: SyncSearch, settings: Settings, index: str, spec: IndexSpec | None = None) -> Generation:
    """An empty index behind its alias, for the configured encoder."""
    names = Names(settings.index_prefix)
    manifest = read_manifest(resolve(settings.encoder))
    generation = new_generation(names, index, 1, spec or IndexSpec.model_validate({}), manifest)
    search.send(create_call(generation, settings, [names.alias(index)]))
    return generation


def journal(search: SyncSearch, settings: Settings, generation: Generation, documents: Sequence[Document]) -> None:
    """Writes raw documents as the API does. Raises BackendUnavailable when one is not stored."""
    _write(search, settings, [_raw(generation, document) for document in documents])


def fill(search: SyncSearch, settings: Settings, generation: Generation, encoded: Iterable[Encoded]) -> None:
    """Writes encoded documents as a worker does, then refreshes."""
    some = iter(encoded)
    while writes := [_encoded(generation, one, windows) for one, windows in islice(some, 1000)]:
        _write(search, settings, writes)
    search.send(refresh_call(generation.physical))


def encode(encoder: "Encoder", documents: Sequence[Document]) -> Iterator[Encoded]:
    """Documents with the vectors of their windows."""
    for start in range(0, len(documents), _TOGETHER):
        some = documents[start : start + _TOGETHER]
        cut = [encoder.windows(joined_text(document.title, document.text)) for document in some]
        vectors = iter(encoder.encode([window for windows in cut for window in windows]))
        for document, windows in zip(some, cut, strict=True):
            yield document, [EncodedWindow(w.start, w.end, next(vectors)) for w in windows]


def _raw(generation: Generation, document: Document) -> Write:
    return raw_write(generation, document, "benchmark", 1, _SECONDS)


def _encoded(generation: Generation, document: Document, windows: Sequence[EncodedWindow]) -> Write:
    raw = _raw(generation, document)
    return encoded_write(generation, Stored(raw.id, raw.version, raw.source), windows)


def _write(search: SyncSearch, settings: Settings, writes: Sequence[Write]) -> None:
    for verdict in write(search, writes, settings.journal_bytes, _SECONDS):
        if verdict.outcome is not Outcome.STORED:
            raise BackendUnavailable("not_stored", f"OpenSearch did not store a document ({verdict}).")
