"""Windows: complete, within their size, in linear time."""

import functools
import itertools
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encoder import PieceTokeniser, TextWindow, cut_windows
from services.encoders.manifest import WEIGHTS_ROOT
from services.errors import ConfigurationError, InvalidInput

TOKENIZER = WEIGHTS_ROOT / "standin" / "tokenizer.json"

AWKWARD = [
    "",
    " ",
    "\x00",
    "a\x00b\x00" * 50,
    "\n\n\n   \t",
    "word " * 400,
    "x" * 5000,
    "x" * 99 + " " + "y" * 101,
    "👨‍👩‍👧 family 🙂🙃" * 60,
    "שלום עולם, זהו משפט ארוך. " * 40,
    "مرحبا بالعالم هذا نص طويل. " * 40,
    "ÀÉÎÕÜ naïve café ﬁne e\u0301 " * 60,
    "中文没有空格的长文本。" * 60,
    "A sentence ends here. Another begins! Does a third? " * 30,
    "line one\nline two is longer\n" * 60,
    "3.14159 2.71828 " * 100,
    "[CLS] [SEP] [MASK] [PAD]" * 40,
    "\ud83d lone surrogate " * 60,
]


@functools.cache
def _pieces() -> PieceTokeniser:
    return PieceTokeniser.load(TOKENIZER)


@pytest.fixture
def pieces() -> PieceTokeniser:
    return _pieces()


def check(text: str, windows: list[TextWindow], size: int, overlap: int) -> None:
    if not text:
        assert windows == []
        return
    assert windows[0].start == 0
    assert windows[-1].end == len(text)
    for window in windows:
        assert 0 <= window.start <= window.end <= len(text)
        assert len(window.piece_ids) <= size
    for before, after in itertools.pairwise(windows):
        assert before.start <= after.start <= before.end <= after.end


words = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["the", "sat.", "antidisestablishmentarianism", "\n", " ", "\x00", "🙂", "שלום", "...", "e.g."]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(words, max_size=150).map(" ".join), st.integers(1, 40), st.data())
def test_every_character_and_every_piece_belongs_to_a_window(text: str, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size // 2))
    pieces = _pieces()
    windows = pieces.windows(text, size, overlap)
    check(text, windows, size, overlap)
    whole = [piece for window in pieces.windows(text, 10**9, 0) for piece in window.piece_ids]
    assert len(whole) in _ends(windows, whole, overlap)


def _ends(windows: list[TextWindow], whole: list[int], overlap: int) -> set[int]:
    """Return the possible ends of the last window in the whole text's pieces.

    Neighbours share half of `overlap` to `overlap`. Repeated pieces such as ":::::" allow several ends.
    """
    ends = {0}
    for number, window in enumerate(windows):
        ids = list(window.piece_ids)
        shared = range((overlap + 1) // 2, overlap + 1) if number else [0]
        ends = {end - n + len(ids) for end in ends for n in shared if whole[end - n : end - n + len(ids)] == ids}
        assert ends, "neighbours share too few or too many pieces"
    return ends


@pytest.mark.parametrize("text", AWKWARD)
@pytest.mark.parametrize(("size", "overlap"), [(1, 0), (2, 1), (16, 4), (128, 16), (510, 64)])
def test_awkward_texts(pieces: PieceTokeniser, text: str, size: int, overlap: int) -> None:
    check(text, pieces.windows(text, size, overlap), size, overlap)


def test_a_text_that_fits_is_one_window(pieces: PieceTokeniser) -> None:
    (window,) = pieces.windows("  The cat sat.  ", 16, 4)
    assert (window.start, window.end) == (0, 16)
    assert [pieces.piece(piece) for piece in window.piece_ids] == ["the", "cat", "sat", "."]


def test_white_space_makes_a_window_without_pieces(pieces: PieceTokeniser) -> None:
    assert pieces.windows(" \n", 16, 4) == [TextWindow(0, 2, ())]


def test_special_pieces_in_a_text_are_plain_characters(pieces: PieceTokeniser) -> None:
    (window,) = pieces.windows("[SEP]", 16, 4)
    assert [pieces.piece(piece) for piece in window.piece_ids] == ["[", "sep", "]"]


def test_windows_end_at_nearby_sentence_ends(pieces: PieceTokeniser) -> None:
    text = "The quick brown fox jumps over the lazy dog today. " * 20
    for window in pieces.windows(text, 96, 16)[:-1]:
        assert text[: window.end].rstrip().endswith(".")
        assert text[window.start :].startswith("The")


def test_windows_split_words_only_when_necessary(pieces: PieceTokeniser) -> None:
    text = "internationalisation tokenisation parallelisation " * 30
    for window in pieces.windows(text, 64, 12):
        assert set(text[window.start : window.end].split()) <= set(text.split())


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (8, 5), (8, -1)])
def test_impossible_windows_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        cut_windows("a b", [1, 2], [(0, 1), (2, 3)], size, overlap)
    assert caught.value.code == "bad_window"


@pytest.mark.parametrize("unit", ["The cat sat on the mat. ", "word " * 9 + "\n", "abc" + " " * 60])
def test_a_megabyte_takes_linear_time(pieces: PieceTokeniser, unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * (length // len(unit) + 1))[:length]
        began = time.process_time()
        check(text, pieces.windows(text, 128, 16), 128, 16)
        return time.process_time() - began

    small, large = min(seconds(125_000) for _ in range(2)), seconds(1_000_000)
    # Eight times the text; a quadratic method would take sixty-four times as long.
    assert large < 24 * small + 0.5


def test_a_missing_tokenizer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError) as caught:
        PieceTokeniser.load(tmp_path / "tokenizer.json")
    assert caught.value.code == "bad_tokenizer"
