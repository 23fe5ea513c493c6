"""The chapters of a talk before it is encoded: its producer's, or those of the engine that its index names.

A talk is never lost because of chapters: whatever an engine does, the document is encoded, and says why it has none.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from models.chapters.engine import Episode
from services.errors import SparsewellError
from services.index_spec import TalkSettings
from services.opensearch.journal import MAX_REASON, Stored
from services.talk.chaptering import Chaptering, given_chapters
from services.talk.chapters import Chapter, Repair
from services.talk.segments import Segments
from services.telemetry import tracing
from services.telemetry.metrics import CHAPTER_DURATION, CHAPTER_FAILURES

log = logging.getLogger(__name__)

GAVE_UP = (
    "chapters_gave_up",
    "The worker died in every attempt before this one, maybe of making chapters: the last one went without.",
)


class Maker(Protocol):
    """An engine whose chapters are checked."""

    @property
    def fingerprint(self) -> str: ...

    def chapters(self, episode: Episode, seconds: float) -> tuple[Sequence[Chapter], Sequence[Repair]]:
        """What `models.chapters.engine.ChapterEngine` proposes, in order, mended and titled."""
        ...


def chaptered(
    stored: Stored, settings: TalkSettings, open_maker: Callable[[str], Maker], seconds: float, *, gave_up: bool
) -> Chaptering:
    """What becomes of the chapters of a talk within so many seconds. `gave_up`: no engine is tried any more."""
    given = given_chapters(stored.source)
    if given is not None:
        return Chaptering("given", given)
    name = settings.chapters
    if name == "none":
        return Chaptering("none")
    if gave_up:
        CHAPTER_FAILURES.labels(name, GAVE_UP[0]).inc()
        return Chaptering(name, error=GAVE_UP)
    fingerprint = ""
    try:
        maker = open_maker(name)
        fingerprint = maker.fingerprint
        with CHAPTER_DURATION.labels(name).time(), tracing.span("chapters", attributes={"engine": name}):
            chapters, repairs = maker.chapters(_episode(stored), seconds)
    except Exception as error:  # an engine may be a model out of its mind
        log.warning("talk %r has no chapters: %s", stored.id, error)
        CHAPTER_FAILURES.labels(name, _said(error)[0]).inc()
        return Chaptering(name, fingerprint=fingerprint, error=_said(error))
    return Chaptering(name, chapters, fingerprint, repairs)


def _episode(stored: Stored) -> Episode:
    source = stored.source
    packed = source.get("segments")
    segments = Segments((0,), (-1,), (-1,), (-1,)) if packed is None else Segments.unpack(packed)
    return Episode(source.get("title", ""), source.get("description", ""), source["text"], segments)


def _said(error: Exception) -> tuple[str, str]:
    if isinstance(error, SparsewellError):
        return error.code, error.detail[:MAX_REASON]
    return "chapters_failed", f"{type(error).__name__}: {error}"[:MAX_REASON]
