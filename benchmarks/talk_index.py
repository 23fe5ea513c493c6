"""Talk encoded as a worker does it, kept in a file for the next run, and written into an index as a worker does it."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.collection_windows import Windows, read_windows, write_windows
from benchmarks.filled_index import create
from indexer.encoding import Cut, encode_in_runs
from indexer.talk_windows import cut_talk
from models.encoder import Encoder
from services.documents import Document
from services.errors import BackendUnavailable
from services.index_spec import IndexSpec, TalkSettings
from services.opensearch.bulk import Outcome, write
from services.opensearch.client import SyncSearch
from services.opensearch.generations import refresh_call
from services.opensearch.journal import Stored, encoded_write, raw_write
from services.settings import Settings
from services.talk.chaptering import Chaptering

_SECONDS = 120.0
Chapters = Mapping[str, Chaptering]


def talk_windows(
    name: str,
    documents: Sequence[Document],
    chapters: Chapters,
    settings: TalkSettings,
    encoder: Encoder,
    cache: Path | None,
) -> Windows:
    """The windows of each document within its chapters, with their vectors. Prints how far it is."""
    path = None if cache is None else cache / f"talk-{name}-{_stamp(documents, chapters, settings, encoder)}.npz"
    if path is not None and path.is_file():
        return read_windows(path)
    begun = time.perf_counter()
    found: Windows = {}
    for document in documents:
        source = {"title": document.title, "text": document.text}
        cut = cut_talk(
            encoder, encoder.manifest.window, Stored(document.id, 0, source), chapters[document.id], settings
        )
        one = encode_in_runs(encoder, cut) if isinstance(cut, Cut) else cut
        if not hasattr(one, "windows"):
            raise BackendUnavailable("not_encoded", f"{document.id}: {one}")
        found[document.id] = one.windows
        print(f"\r{name}: {len(found):,} of {len(documents):,} documents encoded", end="", flush=True)
    print(f" in {time.perf_counter() - begun:.0f} s")
    if path is not None:
        write_windows(path, found)
    return found


def talk_index(
    index: str,
    documents: Sequence[Document],
    chapters: Chapters,
    windows: Windows,
    talk: TalkSettings,
    settings: Settings,
) -> None:
    """An index of its own with all of them."""
    with closing(SyncSearch(settings)) as search:
        generation = create(search, settings, index, IndexSpec.model_validate({"talk": talk.model_dump()}))
        for document in documents:
            raw = raw_write(generation, document, "benchmark", 1, _SECONDS)
            stored = Stored(raw.id, raw.version, raw.source)
            one = encoded_write(generation, stored, windows[document.id], chaptering=chapters[document.id])
            (verdict,) = write(search, [one], settings.journal_bytes, _SECONDS)
            if verdict.outcome is not Outcome.STORED:
                raise BackendUnavailable("not_stored", f"OpenSearch did not store a document ({verdict}).")
        search.send(refresh_call(generation.physical))


def _stamp(documents: Sequence[Document], chapters: Chapters, settings: TalkSettings, encoder: Encoder) -> str:
    """Of all that the windows depend on."""
    digest = hashlib.sha256(encoder.fingerprint.encode())
    for document in documents:
        of_one = chapters[document.id].chapters
        titles = [one.title for one in of_one] if settings.titles_in_vectors else []
        said = (document.title, document.text, [(one.start, one.end) for one in of_one], titles)
        digest.update(repr(said).encode())
    return digest.hexdigest()[:16]
