"""Chapters before encoding: their source, failures of the engine, and windows within chapters."""

from collections.abc import Sequence
from typing import Any

import pytest

from indexer.encoding import (
    CHAPTERS_GIVEN_UP,
    EncodedDocument,
    WindowedDocument,
    cut_talk_windows,
    make_chaptering,
)
from indexer.partial_encoding import encode_long_document
from models.chapters.engine import Episode
from models.encoder import Encoder
from models.registry import load_encoder
from services.encoders.manifest import WindowSettings
from services.errors import Overloaded
from services.index_spec import TalkSettings
from services.opensearch.stored_document import StoredDocument
from services.talk.model import Chapter, Chaptering, Repair, chapter_windows, find_chapter, window_ends

WINDOW = WindowSettings(pieces=16, overlap=4)
TEXT = "one two three four five. " * 20
TILING = TalkSettings.model_validate({})


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("standin")


def talk(text: str = TEXT, title: str = "A title", **more: Any) -> StoredDocument:
    return StoredDocument("a", 0, {"kind": "talk", "title": title, "text": text, "state": "pending"} | more)


class Halves:
    """An engine that makes two chapters, or raises an error."""

    fingerprint = "halves"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.seen: list[tuple[Episode, float]] = []

    def chapters(self, episode: Episode, seconds: float) -> tuple[Sequence[Chapter], Sequence[Repair]]:
        self.seen.append((episode, seconds))
        if self.error is not None:
            raise self.error
        half = len(episode.text) // 2
        return [Chapter("first", 0, half), Chapter("second", half, len(episode.text))], [Repair("mended", "a title")]


def made(
    stored: StoredDocument, maker: Halves, settings: TalkSettings = TILING, *, gave_up: bool = False
) -> Chaptering:
    return make_chaptering(stored, settings, lambda name: maker, 7, gave_up=gave_up)


def test_an_engine_makes_chapters_of_what_the_producer_left_without() -> None:
    maker = Halves()
    chaptering = made(talk(description="of numbers"), maker)
    assert maker.seen == [(Episode("A title", "of numbers", TEXT, maker.seen[0][0].segments), 7)]
    assert len(maker.seen[0][0].segments) == 1
    assert chaptering.fields()["chaptering"] == {
        "engine": "tiling", "fingerprint": "halves",
        "repairs": [{"code": "mended", "detail": "a title", "count": 1}],
    }  # fmt: skip
    assert chaptering.fields()["chapter_titles"] == ["first", "second"]


def test_a_producers_chapters_are_kept() -> None:
    maker = Halves()
    given = [{"number": 1, "title": "All", "start": 0, "end": len(TEXT), "start_time": 3.5}]
    chaptering = made(talk(given=given), maker, TalkSettings(chapters="none"))
    assert not maker.seen
    assert chaptering.fields() == {"chapters": given, "chapter_titles": ["All"], "chaptering": {"engine": "given"}}


def test_none_are_asked_for() -> None:
    assert made(talk(), Halves(), TalkSettings(chapters="none")).fields() == {"chaptering": {"engine": "none"}}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Overloaded("chapters_late", "120 s"), ("chapters_late", "120 s")),
        (MemoryError("much"), ("chapters_failed", "MemoryError: much")),
    ],
)
def test_a_failure_is_said_and_costs_nothing_else(encoder: Encoder, error: Exception, said: tuple[str, str]) -> None:
    chaptering = made(talk(), Halves(error))
    assert (chaptering.error, chaptering.fingerprint, chaptering.chapters) == (said, "halves", ())
    cut = cut_talk_windows(encoder, WINDOW, talk(), chaptering, TILING)
    assert isinstance(cut, WindowedDocument)
    assert [(w.start, w.end) for w in cut.windows] == [
        (w.start, w.end) for w in encoder.windows(f"A title\n{TEXT}", 16, 4)
    ]


def test_the_last_attempt_goes_without_an_engine() -> None:
    maker = Halves()
    assert made(talk(), maker, gave_up=True).error == CHAPTERS_GIVEN_UP
    assert not maker.seen


def test_windows_never_cross_a_chapter_and_cover_the_text(encoder: Encoder) -> None:
    chapters = [Chapter("a", 10, 100), Chapter("b", 100, 101), Chapter("c", 130, len(TEXT) - 30)]
    cut = cut_talk_windows(encoder, WINDOW, talk(), Chaptering("given", chapters), TILING)
    assert isinstance(cut, WindowedDocument)
    text = f"A title\n{TEXT}"
    shift = len(text) - len(TEXT)
    edges = {0, 10, 100, 101, 130, len(TEXT) - 30, len(TEXT)}
    at = 0
    for window in cut.windows:
        assert window.start <= at < window.end, "nothing is left out"
        at = window.end
        assert not any(window.start < edge + shift < window.end for edge in edges - {0}), window
        assert window.piece_ids == encoder.windows(text[window.start : window.end], 510, 0)[0].piece_ids
    assert at == len(text)
    ends = window_ends(cut.windows, shift)
    own = [list(chapter_windows(chapter.as_json(1), ends)) for chapter in chapters]
    assert [cut.windows[at].start - shift for at, *_ in own] == [10, 100, 130]
    assert find_chapter([one.as_json(1) for one in chapters], 105) is None
    assert find_chapter([one.as_json(1) for one in chapters], 101) == chapters[1].as_json(1)


def test_titles_are_read_before_each_window_where_that_is_asked_for(encoder: Encoder) -> None:
    chaptering = Chaptering("given", [Chapter("whales", 0, len(TEXT))])
    cut = cut_talk_windows(encoder, WINDOW, talk(), chaptering, TalkSettings(titles_in_vectors=True))
    plain = cut_talk_windows(encoder, WINDOW, talk(), chaptering, TILING)
    assert isinstance(cut, WindowedDocument)
    assert isinstance(plain, WindowedDocument)
    title = encoder.windows("whales")[0].piece_ids
    assert [w.piece_ids for w in cut.windows] == [title + w.piece_ids for w in plain.windows]
    room = encoder.manifest.max_pieces - 2
    titled = TalkSettings(titles_in_vectors=True)
    full = cut_talk_windows(encoder, WindowSettings(pieces=room, overlap=0), talk(TEXT * 10), chaptering, titled)
    assert isinstance(full, WindowedDocument)
    assert max(len(window.piece_ids) for window in full.windows) <= room


def test_a_long_talk_is_encoded_a_few_windows_at_a_time(encoder: Encoder) -> None:
    cut = cut_talk_windows(encoder, WINDOW, talk(), Chaptering("none"), TILING)
    assert isinstance(cut, WindowedDocument)
    sizes: list[int] = []

    class Counted:
        manifest, fingerprint, windows, piece = encoder.manifest, "", encoder.windows, encoder.piece

        def encode(self, windows: Any) -> Any:
            sizes.append(len(windows))
            return encoder.encode(windows)

    outcome = encode_long_document(Counted(), cut, max_windows=4)
    assert isinstance(outcome, EncodedDocument)
    assert max(sizes) == 4
    assert [one.vector.pack() for one in outcome.windows] == [one.pack() for one in encoder.encode(cut.windows)]
    assert outcome.chaptering is cut.chaptering
