"""From stored documents to encoded ones: windows, one run of the encoder, failures kept to one document.

The chapters of a talk before it is encoded: its producer's, or those of the engine that its index names.

A talk is never lost because of chapters: whatever an engine does, the document is encoded, and says why it has none.

Dense vectors of documents that have their sparse ones. A failure costs the document only these. Pure.

The windows of a talk: cut within its chapters, so that what a window says is said in one of them. Pure.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from models.chapters.engine import Episode
from models.dense import DenseModel
from models.encoder import Encoder, TextWindow
from services.documents.document import joined_text
from services.encoders.manifest import DenseIdentity, WindowSettings
from services.encoders.vectors import SparseVector, merge_neighbouring_windows, pack_dense_vectors
from services.errors import SparsewellError
from services.index_spec import TalkSettings
from services.opensearch.journal import MAX_REASON_CHARACTERS, DenseOutcome, StoredDocument
from services.opensearch.stored_document import EncodedWindow
from services.talk.model import Chapter, Chaptering, Repair, Segments, read_producer_chapters
from services.telemetry import tracing
from services.telemetry.metrics import (
    CHAPTER_DURATION,
    CHAPTER_FAILURES,
    DENSE_FAILURES,
    ENCODE_DURATION,
    ENCODE_PIECES,
)

log = logging.getLogger(__name__)

CHAPTERS_GIVEN_UP = (
    "chapters_gave_up",
    "The worker died in every attempt before this one, maybe of making chapters: the last one went without.",
)


class ChapterMaker(Protocol):
    """An engine whose chapters are checked."""

    @property
    def fingerprint(self) -> str: ...

    def chapters(self, episode: Episode, seconds: float) -> tuple[Sequence[Chapter], Sequence[Repair]]:
        """What `models.chapters.engine.ChapterEngine` proposes, in order, mended and titled."""
        ...


def make_chaptering(
    stored: StoredDocument,
    settings: TalkSettings,
    open_maker: Callable[[str], ChapterMaker],
    seconds: float,
    *,
    gave_up: bool,
) -> Chaptering:
    """What becomes of the chapters of a talk within so many seconds. `gave_up`: no engine is tried any more."""
    given = read_producer_chapters(stored.source)
    if given is not None:
        return Chaptering("given", given)
    name = settings.chapters
    if name == "none":
        return Chaptering("none")
    if gave_up:
        CHAPTER_FAILURES.labels(name, CHAPTERS_GIVEN_UP[0]).inc()
        return Chaptering(name, error=CHAPTERS_GIVEN_UP)
    fingerprint = ""
    try:
        maker = open_maker(name)
        fingerprint = maker.fingerprint
        with CHAPTER_DURATION.labels(name).time(), tracing.open_span("chapters", attributes={"engine": name}):
            chapters, repairs = maker.chapters(_episode(stored), seconds)
    except Exception as error:  # an engine may be a model out of its mind
        log.warning("talk %r has no chapters: %s", stored.id, error)
        CHAPTER_FAILURES.labels(name, _error_code_and_reason(error)[0]).inc()
        return Chaptering(name, fingerprint=fingerprint, error=_error_code_and_reason(error))
    return Chaptering(name, chapters, fingerprint, repairs)


def _episode(stored: StoredDocument) -> Episode:
    source = stored.source
    packed = source.get("segments")
    segments = Segments((0,), (-1,), (-1,), (-1,)) if packed is None else Segments.unpack(packed)
    return Episode(source.get("title", ""), source.get("description", ""), source["text"], segments)


def _error_code_and_reason(error: Exception) -> tuple[str, str]:
    if isinstance(error, SparsewellError):
        return error.code, error.detail[:MAX_REASON_CHARACTERS]
    return "chapters_failed", f"{type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS]


def encode_dense_vectors(
    model: DenseModel, identity: DenseIdentity, documents: Sequence[StoredDocument]
) -> list[DenseOutcome]:
    """The stored form of each document's dense vectors, all windows in one run.

    When the run raises, each document is encoded by itself, so that only the one at fault goes without. It stays
    searchable by word and by its sparse vectors: the reason is written down with it.
    """
    if not documents:
        return []
    try:
        cut = [_windows(model, identity, stored) for stored in documents]
        vectors = model.encode_windows([window for windows in cut for window in windows])
        ends = np.cumsum([len(windows) for windows in cut])[:-1]
        return [
            DenseOutcome(pack_dense_vectors(merge_neighbouring_windows(of_one))) for of_one in np.split(vectors, ends)
        ]
    except Exception as error:
        if len(documents) > 1:
            return [outcome for stored in documents for outcome in encode_dense_vectors(model, identity, [stored])]
        code = error.code if isinstance(error, SparsewellError) else "encoding_failed"
        log.warning("document %r has no dense vectors: %s", documents[0].id, error)
        DENSE_FAILURES.labels(code).inc()
        return [DenseOutcome(error=code) for _ in documents]


def _windows(model: DenseModel, identity: DenseIdentity, stored: StoredDocument) -> list[TextWindow]:
    return model.windows(joined_text(stored.source.get("title", ""), stored.source["text"]), identity.window)


# Windows of one run of the encoder: a few of its own batches. While a run computes, the one before is written; so the
# last run of a message is the only one that waits for its write (docs/decisions/0062).
MAX_RUN_WINDOWS = 16


@dataclass(frozen=True, slots=True)
class WindowedDocument:
    """A document and its windows. `chaptering`: of talk."""

    stored: StoredDocument
    windows: list[TextWindow]
    chaptering: Chaptering | None = None


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """A document and the vectors of its windows."""

    stored: StoredDocument
    windows: list[EncodedWindow]
    chaptering: Chaptering | None = None


@dataclass(frozen=True, slots=True)
class EncodingFailure:
    """A document that could not be encoded. `final`: the same would happen again, there is no use in trying."""

    stored: StoredDocument
    code: str
    reason: str
    final: bool

    @classmethod
    def by(cls, stored: StoredDocument, error: Exception) -> "EncodingFailure":
        if isinstance(error, SparsewellError):
            return cls(stored, error.code, error.detail, final=not error.retryable)
        return cls(stored, "encoding_failed", f"{type(error).__name__}: {error}", final=False)


def cut_windows(encoder: Encoder, window: WindowSettings, stored: StoredDocument) -> WindowedDocument | EncodingFailure:
    """The windows of what is encoded of a document: its title and its text."""
    text = joined_text(stored.source.get("title", ""), stored.source["text"])
    try:
        return WindowedDocument(stored, encoder.windows(text, window.pieces, window.overlap))
    except Exception as error:
        return EncodingFailure.by(stored, error)


def encode_long_document(
    encoder: Encoder, one: WindowedDocument, most: int = MAX_RUN_WINDOWS
) -> EncodedDocument | EncodingFailure:
    """As `encode` for one document that may have thousands of windows: a run holds no more than `most` of them."""
    found: list[EncodedWindow] = []
    for at in range(0, len(one.windows), most):
        (outcome,) = encode_run(encoder, [replace(one, windows=one.windows[at : at + most])])
        if isinstance(outcome, EncodingFailure):
            return outcome
        found += outcome.windows
    return EncodedDocument(one.stored, found, one.chaptering)


def group_into_runs(cuts: Iterable[WindowedDocument], most: int = MAX_RUN_WINDOWS) -> Iterator[list[WindowedDocument]]:
    """Groups of at most `most` windows, longest first; a document with more windows is a group of its own.

    Sorted over all groups, so that cutting them small costs no padding.
    """
    group: list[WindowedDocument] = []
    size = 0
    for one in sorted(cuts, key=lambda cut: -max((len(window.piece_ids) for window in cut.windows), default=0)):
        if group and size + len(one.windows) > most:
            yield group
            group, size = [], 0
        group.append(one)
        size += len(one.windows)
    if group:
        yield group


def encode_run(encoder: Encoder, group: Sequence[WindowedDocument]) -> list[EncodedDocument | EncodingFailure]:
    """All windows of the group in one run, sorted by length inside the encoder.

    When the run raises, each document is encoded by itself, so that only the one at fault fails.
    """
    windows = [window for one in group for window in one.windows]
    pieces = sum(len(window.piece_ids) for window in windows)
    began = time.perf_counter()
    try:
        attributes: tracing.SpanAttributes = {
            "windows": len(windows),
            "pieces": pieces,
            "encoder": encoder.manifest.name,
        }
        with tracing.open_span("encode", attributes=attributes):
            vectors = encoder.encode(windows)
    except Exception as error:
        if len(group) == 1:
            return [EncodingFailure.by(group[0].stored, error)]
        return [outcome for one in group for outcome in encode_run(encoder, [one])]
    name = encoder.manifest.name
    ENCODE_DURATION.labels(name).observe(time.perf_counter() - began)
    ENCODE_PIECES.labels(name).observe(pieces)
    found = iter(vectors)
    return [_check_posting_count(encoder, one, [next(found) for _ in one.windows]) for one in group]


def _check_posting_count(
    encoder: Encoder, one: WindowedDocument, vectors: Sequence[SparseVector]
) -> EncodedDocument | EncodingFailure:
    """The encoded document, unless a vector has more weights than its encoder ever gives.

    Each weight is a posting and four stored bytes: an encoder out of its mind would give one for every piece there is.
    """
    most, limit = max(map(len, vectors), default=0), encoder.manifest.top_k
    if most > limit:
        reason = f"The encoder gave a window {most:,} weights; it gives {limit} at most."
        return EncodingFailure(one.stored, "too_many_weights", reason, final=True)
    spans = zip(one.windows, vectors, strict=True)
    found = [EncodedWindow(window.start, window.end, vector) for window, vector in spans]
    return EncodedDocument(one.stored, found, one.chaptering)


# Pieces of a chapter's title that the encoder reads before each window.
MAX_TITLE_PIECES = 32


def cut_talk_windows(
    encoder: Encoder, window: WindowSettings, stored: StoredDocument, chaptering: Chaptering, settings: TalkSettings
) -> WindowedDocument | EncodingFailure:
    """The windows of a talk's title and text, in order; offsets count in `joined_text`, as of any document."""
    text = stored.source["text"]
    whole = joined_text(stored.source.get("title", ""), text)
    shift = len(whole) - len(text)
    windows: list[TextWindow] = []
    try:
        for start, end, title in _iter_chapter_spans(chaptering.chapters, len(text)):
            begin = start + shift if start else 0
            before = _title(encoder, title) if settings.titles_in_vectors else ()
            size = min(window.pieces, encoder.manifest.max_pieces - 2 - len(before))
            found = encoder.windows(whole[begin : end + shift], size, min(window.overlap, size // 2))
            windows += [
                replace(one, start=one.start + begin, end=one.end + begin, piece_ids=before + one.piece_ids)
                for one in found
            ]
    except Exception as error:
        return EncodingFailure.by(stored, error)
    return WindowedDocument(stored, windows, chaptering)


def _iter_chapter_spans(chapters: Sequence[Chapter], length: int) -> Iterator[tuple[int, int, str]]:
    """The text from its beginning to its end: chapters with their titles, and what lies between them without one."""
    at = 0
    for chapter in chapters:
        if chapter.start > at:
            yield at, chapter.start, ""
        yield chapter.start, chapter.end, chapter.title
        at = chapter.end
    if at < length:
        yield at, length, ""


def _title(encoder: Encoder, title: str) -> tuple[int, ...]:
    return encoder.windows(title, MAX_TITLE_PIECES, 0)[0].piece_ids if title else ()
