"""The windows of a talk: cut within its chapters, so that what a window says is said in one of them. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from indexer.encoding import Cut, Failed
from models.encoder import Encoder
from models.windows import Window
from services.documents import joined_text
from services.index_spec import TalkSettings
from services.manifest import WindowSettings
from services.opensearch.journal import Stored
from services.talk.chaptering import Chaptering
from services.talk.chapters import Chapter

# Pieces of a chapter's title that the encoder reads before each window.
TITLE_PIECES = 32


def cut_talk(
    encoder: Encoder, window: WindowSettings, stored: Stored, chaptering: Chaptering, settings: TalkSettings
) -> Cut | Failed:
    """The windows of a talk's title and text, in order; offsets count in `joined_text`, as of any document."""
    text = stored.source["text"]
    whole = joined_text(stored.source.get("title", ""), text)
    shift = len(whole) - len(text)
    windows: list[Window] = []
    try:
        for start, end, title in _stretches(chaptering.chapters, len(text)):
            begin = start + shift if start else 0
            before = _title(encoder, title) if settings.titles_in_vectors else ()
            size = min(window.pieces, encoder.manifest.max_pieces - 2 - len(before))
            found = encoder.windows(whole[begin : end + shift], size, min(window.overlap, size // 2))
            windows += [
                replace(one, start=one.start + begin, end=one.end + begin, piece_ids=before + one.piece_ids)
                for one in found
            ]
    except Exception as error:
        return Failed.by(stored, error)
    return Cut(stored, windows, chaptering)


def _stretches(chapters: Sequence[Chapter], length: int) -> Iterator[tuple[int, int, str]]:
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
    return encoder.windows(title, TITLE_PIECES, 0)[0].piece_ids if title else ()
