"""Simpler ways to divide a talk."""

import random

import pytest

from cli.relevance.segmentation import (
    divide_by_nltk,
    divide_by_texttiling,
    divide_equally,
    divide_not_at_all,
    divide_randomly,
)
from models.chapters.engine import Episode
from tests.unit.models.chapters.episodes import talk


def about(words: str, sentences: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [f"{' '.join(draw.sample(words.split(), 5))} of the day." for _ in range(sentences)]


TWO = talk(
    [
        *about("vineyard grape barrel cellar harvest bottle", 100, 1),
        *about("cloud storm thunder shower hail wind", 100, 2),
    ]
)


def test_equal_lengths() -> None:
    assert divide_equally(TWO, 400) == [50, 100, 150]
    assert divide_equally(TWO, 10**6) == []
    assert divide_not_at_all(TWO) == []


def test_chance_is_the_same_for_the_same_text() -> None:
    assert divide_randomly(TWO, 100) == divide_randomly(TWO, 100)
    assert len(divide_randomly(TWO, 100)) > 5


def test_texttiling_finds_the_deepest_valley() -> None:
    (found,) = divide_by_texttiling(TWO)
    assert abs(found - 100) <= 4


def test_texttiling_of_nltk_finds_it_among_others() -> None:
    assert any(abs(found - 100) <= 5 for found in divide_by_nltk(TWO))


@pytest.mark.parametrize(
    "way", [divide_not_at_all, divide_equally, divide_randomly, divide_by_texttiling, divide_by_nltk]
)
@pytest.mark.parametrize("episode", [talk(["Hello."]), talk(["a", "b"]), talk(["的" * 3000]), talk(["the of"] * 300)])
def test_what_is_short_or_says_nothing_is_divided_within_it(way, episode: Episode) -> None:  # type: ignore[no-untyped-def]
    assert all(0 < found < len(episode.segments) for found in way(episode))
