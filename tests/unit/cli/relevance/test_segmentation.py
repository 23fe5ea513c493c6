"""Measures of chapters against their published definitions, and the baselines."""

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cli.relevance.segmentation import (
    MethodResults,
    divide_by_nltk,
    divide_by_texttiling,
    divide_equally,
    divide_not_at_all,
    divide_randomly,
    score_rouge_l,
    score_segmentation,
)
from cli.relevance.title_comparison import TitleSimilarity, pair_generated_titles, pair_titles
from models.chapters.engine import Episode
from models.registry import load_encoder
from services.talk.model import Chapter
from tests.unit.models.chapters.episodes import talk


def by_definition(human: set[int], made: set[int], count: int) -> tuple[float, float]:
    """Compute Pk and WindowDiff window by window."""
    window = max(2, round(count / (len(human) + 1) / 2))
    wrong_pk = wrong_count = 0
    for first in range(count - window):
        inside = [sum(first < boundary <= first + window for boundary in some) for some in (human, made)]
        wrong_pk += (inside[0] > 0) != (inside[1] > 0)
        wrong_count += inside[0] != inside[1]
    return wrong_pk / (count - window), wrong_count / (count - window)


@given(st.integers(4, 60), st.data())
def test_pk_and_window_diff_follow_their_definitions(count: int, data: st.DataObject) -> None:
    places = st.sets(st.integers(1, count - 1), max_size=8)
    human, made = data.draw(places), data.draw(places)
    # Both implementations round a half to the even number.
    found = score_segmentation(sorted(human), sorted(made), count)
    assume(found is not None)
    assert found is not None
    assert (found.pk, found.window_diff) == pytest.approx(by_definition(human, made, count))
    assert found.share == (len(made) + 1) / (len(human) + 1)


def test_the_same_division_has_no_error() -> None:
    found = score_segmentation([10, 30], [30, 10, 0], 60)
    assert found is not None
    assert (found.pk, found.window_diff, found.boundary_similarity, found.share) == (0, 0, 1, 1)


def test_a_near_miss_is_better_than_a_miss() -> None:
    near, far = score_segmentation([30], [31], 60), score_segmentation([30], [50], 60)
    assert near is not None
    assert far is not None
    assert near.window_diff < far.window_diff
    assert near.boundary_similarity > far.boundary_similarity


@pytest.mark.parametrize("count", [1, 2])
def test_a_talk_of_two_segments_is_too_short_to_measure(count: int) -> None:
    assert score_segmentation([], [], count) is None


def test_titles_are_compared_by_stems_and_by_vectors() -> None:
    assert score_rouge_l("Testing components", "components, tested") == pytest.approx(0.5)
    assert score_rouge_l("Wine", "Rain") == 0
    titles = TitleSimilarity(load_encoder("standin"))
    assert titles.cosine("wine and rain", "wine and rain") == pytest.approx(1, abs=1e-6)
    assert titles.cosine("wine", "") == 0
    assert titles.cosine("wine", "wines") > titles.cosine("wine", "rain")


def test_a_title_is_paired_with_the_chapter_that_shares_most_text() -> None:
    made = [Chapter("a", 0, 40), Chapter("b", 40, 100)]
    assert pair_titles([(0, 30, "x"), (30, 60, "y"), (60, 100, "")], made) == [("x", "a"), ("y", "b")]
    assert pair_titles([(0, 30, "x")], []) == []


def about(words: str, sentences: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [f"{' '.join(draw.sample(words.split(), 5))} of the day." for _ in range(sentences)]


TWO = talk(
    [
        *about("vineyard grape barrel cellar harvest bottle", 100, 1),
        *about("cloud storm thunder shower hail wind", 100, 2),
    ]
)


def test_chapters_of_equal_length() -> None:
    assert divide_equally(TWO, 400) == [50, 100, 150]
    assert divide_equally(TWO, 10**6) == []
    assert divide_not_at_all(TWO) == []


def test_random_divisions_of_equal_texts_are_equal() -> None:
    assert divide_randomly(TWO, 100) == divide_randomly(TWO, 100)
    assert len(divide_randomly(TWO, 100)) > 5


def test_texttiling_finds_the_deepest_valley() -> None:
    (found,) = divide_by_texttiling(TWO)
    assert abs(found - 100) <= 4


def test_texttiling_of_nltk_finds_the_valley_among_others() -> None:
    assert any(abs(found - 100) <= 5 for found in divide_by_nltk(TWO))


@pytest.mark.parametrize(
    "way", [divide_not_at_all, divide_equally, divide_randomly, divide_by_texttiling, divide_by_nltk]
)
@pytest.mark.parametrize("episode", [talk(["Hello."]), talk(["a", "b"]), talk(["的" * 3000]), talk(["the of"] * 300)])
def test_boundaries_of_short_or_empty_talks_are_inside_the_talk(way, episode: Episode) -> None:  # type: ignore[no-untyped-def]
    assert all(0 < found < len(episode.segments) for found in way(episode))


def test_titles_of_superfluous_chapters_cost() -> None:
    human = [(0, 60, "x"), (60, 100, "y")]
    exact = [Chapter("x", 0, 60), Chapter("y", 60, 100)]
    assert pair_generated_titles(human, exact) == [("x", "x"), ("y", "y")]
    many = [Chapter("x", 0, 20), Chapter("x", 20, 60), Chapter("y", 60, 80), Chapter("y", 80, 100)]
    assert pair_generated_titles(human, many) == [("", "x"), ("x", "x"), ("y", "y"), ("", "y")]
    results = MethodResults(titles=pair_titles(human, many), generated_titles=pair_generated_titles(human, many))
    figures = results.figures(None)
    assert figures["title_rouge_l"] == 1
    assert figures["title_rouge_l_generated"] == 0.5
    assert figures["title_rouge_l_f1"] == pytest.approx(2 / 3, abs=1e-4)
    assert pair_generated_titles([], many) == []
    assert pair_generated_titles([(0, 100, "")], many) == []
