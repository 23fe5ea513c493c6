"""The engine tiling: blocks, cues, cohesion and division."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.chapters import texttiling as tiling
from models.chapters.engine import Episode
from models.chapters.maker import EngineChapterMaker, open_chapter_engine
from models.chapters.texttiling import (
    BoundaryCues,
    TextTilingEngine,
    count_words,
    cut_episode_blocks,
    divide_points,
    embed_blocks,
    load_shipped_cues,
    split_into_blocks,
)
from models.encoder import Encoder
from models.registry import load_encoder
from services.encoders.vectors import EMPTY_VECTOR
from services.errors import ConfigurationError, Overloaded
from services.talk.model import UNKNOWN_TIME, Segments
from tests.unit.models.chapters.episodes import talk

SUBJECTS = {
    "wine": "vineyard grape barrel cellar harvest bottle oak vintage",
    "rain": "cloud storm thunder shower umbrella forecast wind hail",
    "rail": "train engine track station signal carriage conductor platform",
}
NO_CUES = BoundaryCues({}, {}, {}, 0.0)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("standin")


def about(subject: str, sentences: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    words = SUBJECTS[subject].split()
    return [f"{' '.join(chance.sample(words, 6)).capitalize()} here and there." for _ in range(sentences)]


def three_subjects() -> tuple[Episode, list[int]]:
    """Make a talk of three topics; return it and the starts of the second and third."""
    episode = talk([*about("wine", 60, 1), *about("rain", 80, 2), *about("rail", 50, 3)])
    return episode, [episode.segments.offsets[60], episode.segments.offsets[140]]


def test_chapters_begin_where_the_topic_changes(encoder: Encoder) -> None:
    episode, changes = three_subjects()
    found = TextTilingEngine(encoder).propose(episode)
    assert [one.title for one in found] == ["", "", ""]
    near = sum(map(len, ("x" * 60,) * 4))  # four sentences
    assert found[0].start == 0
    assert all(abs(one.start - change) < near for one, change in zip(found[1:], changes, strict=True))


def test_a_single_topic_is_one_chapter(encoder: Encoder) -> None:
    episode = talk(["The harvest of the grape fills a barrel in the cellar, and oak makes the vintage."] * 60)
    assert [one.start for one in TextTilingEngine(encoder).propose(episode)] == [0]


def test_a_chapter_begins_at_the_segment_with_the_best_cues(encoder: Encoder) -> None:
    said = [*about("wine", 60, 1), "Next let's talk about another thing.", *about("rain", 60, 2)]
    episode = talk(said)
    assert [one.start for one in TextTilingEngine(encoder).propose(episode)] == [0, episode.segments.offsets[60]]


def test_chapters_do_not_begin_within_a_segment(encoder: Encoder) -> None:
    text = three_subjects()[0].text
    episode = Episode("", "", text, Segments((0,), (UNKNOWN_TIME,), (UNKNOWN_TIME,), (UNKNOWN_TIME,)))
    assert [one.start for one in TextTilingEngine(encoder).propose(episode)] == [0]


@pytest.mark.parametrize("text", ["", "  \n "])
def test_a_talk_without_words_has_no_proposals(encoder: Encoder, text: str) -> None:
    episode = Episode("", "", text, Segments((0,), (UNKNOWN_TIME,), (UNKNOWN_TIME,), (UNKNOWN_TIME,)))
    assert TextTilingEngine(encoder).propose(episode) == []


def test_a_talk_without_pieces_is_one_chapter(encoder: Encoder) -> None:
    chapters, _ = EngineChapterMaker(TextTilingEngine(encoder)).chapters(talk(["\x01 \x02"] * 50))
    assert [(one.start, one.title) for one in chapters] == [(0, "Chapter 1")]


def test_the_same_episode_gets_the_same_chapters(encoder: Encoder) -> None:
    episode, _ = three_subjects()
    assert TextTilingEngine(encoder).propose(episode) == TextTilingEngine(encoder).propose(episode)


def test_too_little_time_raises_chapters_late(encoder: Encoder) -> None:
    with pytest.raises(Overloaded) as raised:
        TextTilingEngine(encoder).propose(three_subjects()[0], seconds=0)
    assert raised.value.code == "chapters_late"


def test_the_fingerprint_covers_all_parameters(encoder: Encoder) -> None:
    engines = [
        TextTilingEngine(encoder),
        TextTilingEngine(encoder, penalty=0.07),
        TextTilingEngine(encoder, cue_weight=0.02),
        TextTilingEngine(encoder, cues=NO_CUES),
    ]
    assert len({engine.fingerprint for engine in engines}) == len(engines)
    assert TextTilingEngine(encoder).fingerprint == engines[0].fingerprint


def test_ten_hours_without_a_full_stop_have_a_bounded_number_of_blocks(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "MAX_BLOCKS", 50)
    said = [sentence.strip(".") for sentence in (*about("wine", 400, 1), *about("rain", 500, 2))]
    episode = talk([" ".join(said)])
    starts = list(range(0, len(episode.text), 1500))
    unknown = [UNKNOWN_TIME] * len(starts)
    episode = Episode("", "", episode.text, Segments(starts, unknown, unknown, unknown))
    assert len(cut_episode_blocks(episode)) <= 100
    change = len(" ".join(said[:400]))
    assert any(abs(one.start - change) <= 1500 for one in TextTilingEngine(encoder).propose(episode))


@given(
    st.lists(st.text(st.sampled_from("ab 的.\n"), min_size=1, max_size=120), min_size=1, max_size=30),
    st.integers(1, 12),
)
def test_blocks_cover_the_text_and_are_not_long(said: list[str], words: int) -> None:
    episode = talk(said)
    found = split_into_blocks(episode.text, episode.segments, words)
    assert found[0].start == 0
    assert found[-1].end == len(episode.text)
    assert all(a.end == b.start and a.start < a.end for a, b in itertools.pairwise(found))
    offsets = set(episode.segments.offsets)
    assert all((block.start in offsets) == block.opens for block in found)
    # Text without spaces is cut anywhere. A cut may be a third of a block away from an even division.
    assert all(count_words(episode.text, block.start, block.end) <= 2 * words + 2 for block in found)


def best_division(values: np.ndarray, sizes: np.ndarray, price: np.ndarray) -> float:
    """Try all divisions, and return the cost of the cheapest."""

    def apart(a: int, b: int) -> float:
        middle = (values[a:b] * sizes[a:b, None]).sum(0) / sizes[a:b].sum()
        return float((((values[a:b] - middle) ** 2).sum(1) * sizes[a:b]).sum())

    count = len(values)
    return min(
        sum(apart(a, b) for a, b in itertools.pairwise([0, *cut, count])) / apart(0, count) + price[list(cut)].sum()
        for size in range(count)
        for cut in itertools.combinations(range(1, count), size)
    )


@given(st.integers(2, 8), st.integers(0, 10_000))
def test_no_division_is_cheaper(count: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    values = chance.standard_normal((count, 2)).astype(np.float32)
    sizes = chance.uniform(1, 5, count)
    price = chance.uniform(0, 0.5, count)
    price[chance.random(count) < 0.2] = np.inf
    cut = divide_points(values, sizes, price)
    fixed = np.full(count, np.inf)
    fixed[cut] = price[cut]
    assert best_division(values, sizes, fixed) == pytest.approx(best_division(values, sizes, price), abs=1e-5)
    assert cut == sorted(cut)
    assert np.isfinite(price[cut]).all()


def test_blocks_without_pieces_are_equal() -> None:
    assert embed_blocks([EMPTY_VECTOR, EMPTY_VECTOR]).tolist() == [[0.0], [0.0]]


def test_cues_raise_and_lower_the_score() -> None:
    text = "All of that is fine. Next let's talk about rain. But it's because they know."
    cues = load_shipped_cues()
    assert cues.at(text, text.index("Next")) > 0.3
    assert cues.at(text, text.index("But")) < -1
    assert cues.at("这是 一个 句子", 3) == 0
    assert cues.at("Is it? We", 7) < cues.at("It is. We", 7)


def test_engines_are_opened_by_name(encoder: Encoder) -> None:
    assert open_chapter_engine("tiling", encoder).name == "tiling"
    with pytest.raises(ConfigurationError) as raised:
        open_chapter_engine("tilting", encoder)
    assert raised.value.code == "unknown_engine"
    with pytest.raises(ConfigurationError) as raised:
        open_chapter_engine("podtile", encoder)
    assert raised.value.code == "no_chapter_model"
