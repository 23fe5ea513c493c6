"""Talk on its way through a worker: chapters, vectors, and the time and memory that they take.

    python -m benchmarks talk_encoding ../shared/data --json benchmarks/results/talk-encoding.json

A talk of some hours is a sequence of a show's episodes (10,000 words an hour). It is journalled in an index with
chapters and encoded by the worker's task, in a separate process. `make_chapters`, `encode_talk_windows` and
`fill_talk_index` do the same step by step, with a cache, for benchmarks that search in talk.
"""

import argparse
import hashlib
import json
import multiprocessing
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.collections import DocumentWindows, read_windows, write_windows
from benchmarks.measuring import make_parser, run_benchmark
from benchmarks.quality.chapters import read_episode_set
from benchmarks.service import create_index, journal_documents, open_node, read_opensearch_version
from indexer.encode_task import run_encode
from indexer.encoding import ChapterMaker, WindowedDocument, cut_talk_windows, make_chaptering
from indexer.partial_encoding import encode_long_document
from indexer.runtime import Runtime, WorkerSettings, load_chapter_maker
from models.encoder import Encoder
from services.documents.document import Document
from services.errors import BackendUnavailable
from services.index_spec import IndexSpec, TalkSettings
from services.opensearch.bulk import WriteOutcome, write_bulk
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import refresh_call
from services.opensearch.journal import encoded_write, get_documents_call, raw_write, read_stored_documents
from services.opensearch.stored_document import StoredDocument, build_talk_members
from services.queue.messages import EncodeMessage
from services.settings import Settings
from services.talk.model import Chapter, Chaptering, Segments, Talk

WORDS_PER_HOUR = 10_000
TALK_SPEC = IndexSpec.model_validate({"talk": {}})
_TIMEOUT_SECONDS = 120.0
ChapteringById = Mapping[str, Chaptering]


def talk_encoding(argv: list[str] | None = None) -> None:
    """Measure a worker's time and memory for one hour and for ten hours of talk."""
    parser = make_parser("talk_encoding", talk_encoding.__doc__)
    parser.add_argument("data", type=Path, help="folder of chapters/syntax_fm.jsonl.gz")
    parser.add_argument("--hours", default="1,10")
    parser.add_argument("--encoder", default="projected-minilm-l6")
    parser.add_argument("--threads", type=int, default=2)
    run_benchmark("talk_encoding", parser, measure_talk_encoding, argv)


def measure_talk_encoding(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return the figures by hours of talk."""
    figures: dict[str, Any] = {}
    with open_node() as base:
        for number, hours in enumerate(map(float, arguments.hours.split(","))):
            overrides = {
                "encoder": arguments.encoder,
                "worker_threads": arguments.threads,
                "index_prefix": f"{base.index_prefix}{number}",
            }
            settings = base.model_copy(update=overrides)
            figures[f"{hours:g} hours"] = row = dict(_measure_document(settings, make_long_talk(arguments.data, hours)))
            print(f"{hours:g} hours: {row}", flush=True)
        figures["opensearch"] = read_opensearch_version(base)
    return figures


def make_long_talk(data: Path, hours: float) -> Document:
    """Return a document of `hours` hours, made of episodes, without times."""
    texts: list[str] = []
    offsets: list[int] = []
    words, position = 0, 0
    for document in read_episode_set(data / "chapters" / "syntax_fm.jsonl.gz", 1000).documents:
        talk = document.talk or Talk(Segments((0,), (-1,), (-1,), (-1,)))
        ends = [*talk.segments.offsets[1:], len(document.text)]
        for start, end in zip(talk.segments.offsets, ends, strict=True):
            if words >= hours * WORDS_PER_HOUR:
                break
            text = document.text[start:end].strip() + " "
            texts.append(text)
            offsets.append(position)
            words, position = words + len(text.split()), position + len(text)
    if words < hours * WORDS_PER_HOUR:
        raise BackendUnavailable("too_few_texts", f"The episodes have {words:,} words; {hours:g} hours need more.")
    unknown = [-1] * len(offsets)
    return Document("talk", "".join(texts), "A talk", talk=Talk(Segments(offsets, unknown, unknown, unknown)))


def _measure_document(settings: Settings, document: Document) -> Iterator[tuple[str, Any]]:
    yield "words", len(document.text.split())
    with closing(SyncSearchClient(settings)) as search:
        generation = create_index(search, settings, "talks", TALK_SPEC)
        journal_documents(search, settings, generation, [document])
        receiver, sender = multiprocessing.get_context("spawn").Pipe()
        child = multiprocessing.get_context("spawn").Process(target=encode_in_process, args=(settings, sender))
        child.start()
        sender.close()
        yield from receiver.recv().items()
        child.join()
        (stored,) = read_stored_documents(
            search.send(replace(get_documents_call(generation.physical, ["talk"]), params={}))
        )
        yield "windows", len(stored.source["windows"])
        yield "chapters", len(stored.source["chapters"])


def encode_in_process(settings: Settings, connection: Connection) -> None:
    """Encode the talk in a separate process, and send the figures."""
    makers: list[TimedChapterMaker] = []

    def load_timed(*arguments: Any) -> ChapterMaker:
        makers.append(TimedChapterMaker(load_chapter_maker(*arguments)))
        return makers[0]

    runtime = Runtime(settings, WorkerSettings(), load_maker=load_timed)
    encoder: Encoder = runtime.encoder
    encoder.encode(encoder.windows("a first run"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    counts = run_encode(runtime, EncodeMessage(index="talks", ids=("talk",)), redelivered=False)
    durations = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection.send(
        {
            "counts": counts,
            "seconds": round(durations, 2),
            "seconds_of_chapters": round(makers[0].seconds, 2),
            "peak_mib": round(peak / 1024, 1),
            "peak_mib_before": round(before / 1024, 1),
        }
    )


class TimedChapterMaker:
    """Chapter maker that measures its time."""

    def __init__(self, maker: ChapterMaker) -> None:
        self._maker, self.seconds = maker, 0.0

    @property
    def fingerprint(self) -> str:
        return self._maker.fingerprint

    def chapters(self, *arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return self._maker.chapters(*arguments)
        finally:
            self.seconds = time.perf_counter() - started


def make_chapters(
    name: str, documents: Sequence[Document], maker: ChapterMaker, engine: str, cache: Path | None
) -> ChapteringById:
    """Return the chapters of an engine for each document, none of a producer's. Prints progress."""
    digest = hashlib.sha256(maker.fingerprint.encode())
    for document in documents:
        digest.update(repr((document.title, document.text)).encode())
    path = None if cache is None else cache / f"chapters-{name}-{engine}-{digest.hexdigest()[:16]}.json"
    if path is not None and path.is_file():
        cached = json.loads(path.read_text())
        return {name: Chaptering(engine, [Chapter.read(row) for row in chapters]) for name, chapters in cached.items()}
    started, talk = time.perf_counter(), TalkSettings.model_validate({"chapters": engine})
    chapterings: dict[str, Chaptering] = {}
    for document in documents:
        source = {"title": document.title, "text": document.text}
        source |= build_talk_members(document.talk) if document.talk else {}
        chaptering = make_chaptering(
            StoredDocument(document.id, 0, source), talk, lambda _: maker, 3600.0, gave_up=False
        )
        if chaptering.error is not None:
            raise BackendUnavailable(*chaptering.error)
        chapterings[document.id] = chaptering
        print(f"\r{name}: chapters of {len(chapterings):,} of {len(documents):,}", end="", flush=True)
    print(f" in {time.perf_counter() - started:.0f} s")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({name: made.fields().get("chapters", []) for name, made in chapterings.items()}))
    return chapterings


def encode_talk_windows(
    name: str,
    documents: Sequence[Document],
    chapters: ChapteringById,
    settings: TalkSettings,
    encoder: Encoder,
    cache: Path | None,
) -> DocumentWindows:
    """Return the windows of each document within its chapters, with their vectors. Prints progress."""
    path = (
        None
        if cache is None
        else cache / f"talk-{name}-{_windows_fingerprint(documents, chapters, settings, encoder)}.npz"
    )
    if path is not None and path.is_file():
        return read_windows(path)
    started = time.perf_counter()
    windows: DocumentWindows = {}
    for document in documents:
        source = {"title": document.title, "text": document.text}
        cut = cut_talk_windows(
            encoder, encoder.manifest.window, StoredDocument(document.id, 0, source), chapters[document.id], settings
        )
        encoded = encode_long_document(encoder, cut) if isinstance(cut, WindowedDocument) else cut
        if not hasattr(encoded, "windows"):
            raise BackendUnavailable("not_encoded", f"{document.id}: {encoded}")
        windows[document.id] = encoded.windows
        print(f"\r{name}: {len(windows):,} of {len(documents):,} documents encoded", end="", flush=True)
    print(f" in {time.perf_counter() - started:.0f} s")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_windows(path, windows)
    return windows


def _windows_fingerprint(
    documents: Sequence[Document], chapters: ChapteringById, settings: TalkSettings, encoder: Encoder
) -> str:
    """Return a hash of everything that the windows depend on."""
    digest = hashlib.sha256(encoder.fingerprint.encode())
    for document in documents:
        own_chapters = chapters[document.id].chapters
        titles = [chapter.title for chapter in own_chapters] if settings.titles_in_vectors else []
        spans = [(chapter.start, chapter.end) for chapter in own_chapters]
        digest.update(repr((document.title, document.text, spans, titles)).encode())
    return digest.hexdigest()[:16]


def fill_talk_index(
    index: str,
    documents: Sequence[Document],
    chapters: ChapteringById,
    windows: DocumentWindows,
    talk: TalkSettings,
    settings: Settings,
) -> None:
    """Create an index and write all documents into it as a worker does."""
    with closing(SyncSearchClient(settings)) as search:
        generation = create_index(search, settings, index, IndexSpec.model_validate({"talk": talk.model_dump()}))
        for document in documents:
            raw = raw_write(generation, document, "benchmark", 1, _TIMEOUT_SECONDS)
            stored = StoredDocument(raw.id, raw.version, raw.source)
            write = encoded_write(generation, stored, windows[document.id], chaptering=chapters[document.id])
            (verdict,) = write_bulk(search, [write], settings.journal_bytes, _TIMEOUT_SECONDS)
            # A repeat after a late answer is superseded.
            if verdict.outcome not in {WriteOutcome.STORED, WriteOutcome.SUPERSEDED}:
                raise BackendUnavailable("not_stored", f"OpenSearch did not store a document ({verdict}).")
        search.send(refresh_call(generation.physical))
