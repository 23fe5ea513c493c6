"""Talk encoded as a worker does it, kept in a file for the next run, and written into an index as a worker does it."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.collection_windows import Windows, read_windows, write_windows
from benchmarks.filled_index import create
from indexer.chaptering import Maker, chaptered
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
from services.opensearch.talk_members import talk_members
from services.settings import Settings
from services.talk.chaptering import Chaptering
from services.talk.chapters import Chapter

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
        path.parent.mkdir(parents=True, exist_ok=True)
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
            # (superseded: what was sent again because the answer was late)
            if verdict.outcome not in {Outcome.STORED, Outcome.SUPERSEDED}:
                raise BackendUnavailable("not_stored", f"OpenSearch did not store a document ({verdict}).")
        search.send(refresh_call(generation.physical))


def made_chapters(name: str, documents: Sequence[Document], maker: Maker, engine: str, cache: Path | None) -> Chapters:
    """Those of an engine for each document, none of a producer's. Prints how far it is."""
    digest = hashlib.sha256(maker.fingerprint.encode())
    for document in documents:
        digest.update(repr((document.title, document.text)).encode())
    path = None if cache is None else cache / f"chapters-{name}-{engine}-{digest.hexdigest()[:16]}.json"
    if path is not None and path.is_file():
        kept = json.loads(path.read_text())
        return {one: Chaptering(engine, [Chapter.read(each) for each in chapters]) for one, chapters in kept.items()}
    begun, talk = time.perf_counter(), TalkSettings.model_validate({"chapters": engine})
    found: dict[str, Chaptering] = {}
    for document in documents:
        source = {"title": document.title, "text": document.text}
        source |= talk_members(document.talk) if document.talk else {}
        made = chaptered(Stored(document.id, 0, source), talk, lambda _: maker, 3600.0, gave_up=False)
        if made.error is not None:
            raise BackendUnavailable(*made.error)
        found[document.id] = made
        print(f"\r{name}: chapters of {len(found):,} of {len(documents):,}", end="", flush=True)
    print(f" in {time.perf_counter() - begun:.0f} s")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({one: made.fields().get("chapters", []) for one, made in found.items()}))
    return found


def _stamp(documents: Sequence[Document], chapters: Chapters, settings: TalkSettings, encoder: Encoder) -> str:
    """Of all that the windows depend on."""
    digest = hashlib.sha256(encoder.fingerprint.encode())
    for document in documents:
        of_one = chapters[document.id].chapters
        titles = [one.title for one in of_one] if settings.titles_in_vectors else []
        said = (document.title, document.text, [(one.start, one.end) for one in of_one], titles)
        digest.update(repr(said).encode())
    return digest.hexdigest()[:16]
