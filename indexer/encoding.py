"""The encoding of stored documents: windows, sparse vectors, chapters of talk and dense vectors.

Several documents share a run of the encoder. When a run raises, each document is encoded by itself, so that only the
faulty one fails. The windows of a talk are cut within its chapters (docs/decisions/0190). A failure of a chapter
engine or of a dense encoder costs a document only its chapters or dense vectors; the reason is stored with it.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.chapters.engine import Episode
from models.dense import DenseModel
from models.encoder import Encoder, JointEncoder, TextWindow
from services.documents.document import joined_text
from services.encoders.manifest import DenseIdentity, WindowSettings
from services.encoders.vectors import DenseArray, SparseVector, merge_neighbouring_windows, pack_dense_vectors
from services.errors import SparsewellError
from services.index_spec import TalkSettings
from services.opensearch.journal import MAX_REASON_CHARACTERS, DenseOutcome
from services.opensearch.stored_document import EncodedWindow, StoredDocument
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
    "The worker died in every earlier attempt, perhaps while it made chapters: the last attempt skipped them.",
)
# The windows of one run: a few batches of the encoder. A run is written while the next one computes, so only the last
# run of a message waits for its write (docs/decisions/0062).
MAX_RUN_WINDOWS = 16
# The pieces of a chapter's title before each window.
MAX_TITLE_PIECES = 32


@dataclass(frozen=True, slots=True)
class WindowedDocument:
    """A document and its windows. Only talk has a `chaptering`."""

    stored: StoredDocument
    windows: list[TextWindow]
    chaptering: Chaptering | None = None


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """A document and the vectors of its windows.

    `dense` [windows, width]: the dense vectors of the same pass; None: the pass did not give them.
    """

    stored: StoredDocument
    windows: list[EncodedWindow]
    chaptering: Chaptering | None = None
    dense: DenseArray | None = None


@dataclass(frozen=True, slots=True)
class EncodingFailure:
    """A document that could not be encoded. `final`: another attempt would fail in the same way."""

    stored: StoredDocument
    code: str
    reason: str
    final: bool

    @classmethod
    def from_error(cls, stored: StoredDocument, error: Exception) -> "EncodingFailure":
        """Create the failure of a document from an exception."""
        if isinstance(error, SparsewellError):
            return cls(stored, error.code, error.detail, final=not error.retryable)
        return cls(stored, "encoding_failed", f"{type(error).__name__}: {error}", final=False)


def cut_windows(encoder: Encoder, window: WindowSettings, stored: StoredDocument) -> WindowedDocument | EncodingFailure:
    """Cut a document's title and text into windows."""
    text = joined_text(stored.source.get("title", ""), stored.source["text"])
    try:
        return WindowedDocument(stored, encoder.windows(text, window.pieces, window.overlap))
    except Exception as error:
        return EncodingFailure.from_error(stored, error)


def group_into_runs(
    documents: Iterable[WindowedDocument], max_windows: int = MAX_RUN_WINDOWS
) -> Iterator[list[WindowedDocument]]:
    """Group documents into runs of at most `max_windows` windows. A document with more windows is a run by itself.

    The documents are sorted by length, the longest first, so that small runs cost no padding.
    """
    group: list[WindowedDocument] = []
    size = 0
    for document in sorted(documents, key=_longest_window, reverse=True):
        if group and size + len(document.windows) > max_windows:
            yield group
            group, size = [], 0
        group.append(document)
        size += len(document.windows)
    if group:
        yield group


def _longest_window(document: WindowedDocument) -> int:
    return max((len(window.piece_ids) for window in document.windows), default=0)


def encode_run(
    encoder: Encoder, group: Sequence[WindowedDocument], *, jointly: bool = False
) -> list[EncodedDocument | EncodingFailure]:
    """Encode all windows of a group in one run. The encoder sorts them by length.

    `jointly`: the documents also get the dense vectors of the encoder's pass, if it gives any. When the run raises,
    each document is encoded by itself, so that only the faulty one fails.
    """
    windows = [window for document in group for window in document.windows]
    pieces = sum(len(window.piece_ids) for window in windows)
    began = time.perf_counter()
    try:
        attributes: tracing.SpanAttributes = {
            "windows": len(windows),
            "pieces": pieces,
            "encoder": encoder.manifest.name,
        }
        with tracing.open_span("encode", attributes=attributes):
            if jointly and isinstance(encoder, JointEncoder):
                vectors, dense = encoder.encode_jointly(windows)
            else:
                vectors, dense = encoder.encode(windows), None
    except Exception as error:
        if len(group) == 1:
            return [EncodingFailure.from_error(group[0].stored, error)]
        return [outcome for document in group for outcome in encode_run(encoder, [document], jointly=jointly)]
    name = encoder.manifest.name
    ENCODE_DURATION.labels(name).observe(time.perf_counter() - began)
    ENCODE_PIECES.labels(name).observe(pieces)
    outcomes, at = [], 0
    for document in group:
        rows = slice(at, at + len(document.windows))
        outcomes.append(_check_posting_count(encoder, document, vectors[rows], None if dense is None else dense[rows]))
        at = rows.stop
    return outcomes


def _check_posting_count(
    encoder: Encoder, document: WindowedDocument, vectors: Sequence[SparseVector], dense: DenseArray | None
) -> EncodedDocument | EncodingFailure:
    """Return the encoded document, or a failure when a vector has more weights than the encoder's manifest allows.

    Each weight is a posting and four stored bytes. A faulty encoder could return one for every piece of the vocabulary.
    """
    largest, limit = max(map(len, vectors), default=0), encoder.manifest.top_k
    if largest > limit:
        reason = f"The encoder returned {largest:,} weights for a window; its limit is {limit}."
        return EncodingFailure(document.stored, "too_many_weights", reason, final=True)
    pairs = zip(document.windows, vectors, strict=True)
    encoded = [EncodedWindow(window.start, window.end, vector) for window, vector in pairs]
    return EncodedDocument(document.stored, encoded, document.chaptering, dense)


def cut_talk_windows(
    encoder: Encoder, window: WindowSettings, stored: StoredDocument, chaptering: Chaptering, settings: TalkSettings
) -> WindowedDocument | EncodingFailure:
    """Cut a talk's title and text into windows, each within one chapter. Offsets count in `joined_text`."""
    text = stored.source["text"]
    joined = joined_text(stored.source.get("title", ""), text)
    shift = len(joined) - len(text)
    windows: list[TextWindow] = []
    try:
        for start, end, title in _iter_chapter_spans(chaptering.chapters, len(text)):
            begin = start + shift if start else 0
            title_ids = _title_piece_ids(encoder, title) if settings.titles_in_vectors else ()
            size = min(window.pieces, encoder.manifest.max_pieces - 2 - len(title_ids))
            cut = encoder.windows(joined[begin : end + shift], size, min(window.overlap, size // 2))
            windows += [
                replace(part, start=part.start + begin, end=part.end + begin, piece_ids=title_ids + part.piece_ids)
                for part in cut
            ]
    except Exception as error:
        return EncodingFailure.from_error(stored, error)
    return WindowedDocument(stored, windows, chaptering)


def _iter_chapter_spans(chapters: Sequence[Chapter], length: int) -> Iterator[tuple[int, int, str]]:
    """Yield spans that cover the whole text: chapters with their titles, and the gaps between them without a title."""
    at = 0
    for chapter in chapters:
        if chapter.start > at:
            yield at, chapter.start, ""
        yield chapter.start, chapter.end, chapter.title
        at = chapter.end
    if at < length:
        yield at, length, ""


def _title_piece_ids(encoder: Encoder, title: str) -> tuple[int, ...]:
    return encoder.windows(title, MAX_TITLE_PIECES, 0)[0].piece_ids if title else ()


class ChapterMaker(Protocol):
    """A chapter engine with validated output (`models.chapters.maker.EngineChapterMaker`)."""

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the engine and its model."""
        ...

    def chapters(self, episode: Episode, seconds: float) -> tuple[Sequence[Chapter], Sequence[Repair]]:
        """Make the chapters of an episode within `seconds`. Return them in order, with the repairs of the proposals."""
        ...


def make_chaptering(
    stored: StoredDocument,
    settings: TalkSettings,
    open_maker: Callable[[str], ChapterMaker],
    seconds: float,
    *,
    gave_up: bool,
) -> Chaptering:
    """Return the producer's chapters of a talk, or make chapters with the index's engine within `seconds`.

    `gave_up`: skip the engine. A failure of the engine is stored in the result; a talk is encoded without chapters.
    """
    producer_chapters = read_producer_chapters(stored.source)
    if producer_chapters is not None:
        return Chaptering("given", producer_chapters)
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
    except Exception as error:  # A generative engine may fail in any way.
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
    """Encode the dense vectors of documents, all windows in one run. Return their stored form for each document.

    When the run raises, each document is encoded by itself. The faulty one gets an error code in place of vectors and
    stays searchable by lexical and sparse retrieval.
    """
    if not documents:
        return []
    try:
        cuts = [_dense_windows(model, identity, stored) for stored in documents]
        vectors = model.encode_windows([window for windows in cuts for window in windows])
        ends = np.cumsum([len(windows) for windows in cuts])[:-1]
        return [store_dense_vectors(document_vectors) for document_vectors in np.split(vectors, ends)]
    except Exception as error:
        if len(documents) > 1:
            return [outcome for stored in documents for outcome in encode_dense_vectors(model, identity, [stored])]
        code = error.code if isinstance(error, SparsewellError) else "encoding_failed"
        log.warning("document %r has no dense vectors: %s", documents[0].id, error)
        DENSE_FAILURES.labels(code).inc()
        return [DenseOutcome(error=code) for _ in documents]


def store_dense_vectors(vectors: npt.NDArray[np.floating]) -> DenseOutcome:
    """Return the stored form of a document's dense vectors [windows, width]. Raises InvalidInput (`bad_vector`)."""
    return DenseOutcome(pack_dense_vectors(merge_neighbouring_windows(vectors)))


def _dense_windows(model: DenseModel, identity: DenseIdentity, stored: StoredDocument) -> list[TextWindow]:
    return model.windows(joined_text(stored.source.get("title", ""), stored.source["text"]), identity.window)
