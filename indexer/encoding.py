"""From stored documents to encoded ones: windows, one run of the encoder, failures kept to one document."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from models.encoder import Encoder
from models.windows import Window
from services.documents import joined_text
from services.errors import SparsewellError
from services.manifest import WindowSettings
from services.opensearch.journal import Stored
from services.opensearch.stored_windows import EncodedWindow
from services.talk.chaptering import Chaptering
from services.telemetry import tracing
from services.telemetry.metrics import ENCODE_DURATION, ENCODE_PIECES
from services.vectors import SparseVector

# Windows of one run of the encoder: a few of its own batches. While a run computes, the one before is written; so the
# last run of a message is the only one that waits for its write (docs/decisions/0062).
RUN_WINDOWS = 16


@dataclass(frozen=True, slots=True)
class Cut:
    """A document and its windows. `chaptering`: of talk."""

    stored: Stored
    windows: list[Window]
    chaptering: Chaptering | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document and the vectors of its windows."""

    stored: Stored
    windows: list[EncodedWindow]
    chaptering: Chaptering | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A document that could not be encoded. `final`: the same would happen again, there is no use in trying."""

    stored: Stored
    code: str
    reason: str
    final: bool

    @classmethod
    def by(cls, stored: Stored, error: Exception) -> "Failed":
        if isinstance(error, SparsewellError):
            return cls(stored, error.code, error.detail, final=not error.retryable)
        return cls(stored, "encoding_failed", f"{type(error).__name__}: {error}", final=False)


def cut(encoder: Encoder, window: WindowSettings, stored: Stored) -> Cut | Failed:
    """The windows of what is encoded of a document: its title and its text."""
    text = joined_text(stored.source.get("title", ""), stored.source["text"])
    try:
        return Cut(stored, encoder.windows(text, window.pieces, window.overlap))
    except Exception as error:
        return Failed.by(stored, error)


def encode_in_runs(encoder: Encoder, one: Cut, most: int = RUN_WINDOWS) -> Encoded | Failed:
    """As `encode` for one document that may have thousands of windows: a run holds no more than `most` of them."""
    found: list[EncodedWindow] = []
    for at in range(0, len(one.windows), most):
        (outcome,) = encode(encoder, [replace(one, windows=one.windows[at : at + most])])
        if isinstance(outcome, Failed):
            return outcome
        found += outcome.windows
    return Encoded(one.stored, found, one.chaptering)


def runs(cuts: Iterable[Cut], most: int = RUN_WINDOWS) -> Iterator[list[Cut]]:
    """Groups of at most `most` windows, longest first; a document with more windows is a group of its own.

    Sorted over all groups, so that cutting them small costs no padding.
    """
    group: list[Cut] = []
    size = 0
    for one in sorted(cuts, key=lambda cut: -max((len(window.piece_ids) for window in cut.windows), default=0)):
        if group and size + len(one.windows) > most:
            yield group
            group, size = [], 0
        group.append(one)
        size += len(one.windows)
    if group:
        yield group


def encode(encoder: Encoder, group: Sequence[Cut]) -> list[Encoded | Failed]:
    """All windows of the group in one run, sorted by length inside the encoder.

    When the run raises, each document is encoded by itself, so that only the one at fault fails.
    """
    windows = [window for one in group for window in one.windows]
    pieces = sum(len(window.piece_ids) for window in windows)
    began = time.perf_counter()
    try:
        attributes: tracing.Attributes = {"windows": len(windows), "pieces": pieces, "encoder": encoder.manifest.name}
        with tracing.span("encode", attributes=attributes):
            vectors = encoder.encode(windows)
    except Exception as error:
        if len(group) == 1:
            return [Failed.by(group[0].stored, error)]
        return [outcome for one in group for outcome in encode(encoder, [one])]
    name = encoder.manifest.name
    ENCODE_DURATION.labels(name).observe(time.perf_counter() - began)
    ENCODE_PIECES.labels(name).observe(pieces)
    found = iter(vectors)
    return [_bounded(encoder, one, [next(found) for _ in one.windows]) for one in group]


def _bounded(encoder: Encoder, one: Cut, vectors: Sequence[SparseVector]) -> Encoded | Failed:
    """The encoded document, unless a vector has more weights than its encoder ever gives.

    Each weight is a posting and four stored bytes: an encoder out of its mind would give one for every piece there is.
    """
    most, limit = max(map(len, vectors), default=0), encoder.manifest.top_k
    if most > limit:
        reason = f"The encoder gave a window {most:,} weights; it gives {limit} at most."
        return Failed(one.stored, "too_many_weights", reason, final=True)
    spans = zip(one.windows, vectors, strict=True)
    found = [EncodedWindow(window.start, window.end, vector) for window, vector in spans]
    return Encoded(one.stored, found, one.chaptering)
