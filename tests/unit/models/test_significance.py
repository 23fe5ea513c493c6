"""Paired comparisons against scipy and by hand."""

import numpy as np
import pytest
from numpy.random import default_rng

from models.significance import compare_rankings


def figures(values: list[float]) -> dict[str, float]:
    return {f"q{number}": value for number, value in enumerate(values)}


def test_a_small_case_is_the_exact_randomisation_test() -> None:
    """Of the 2^5 arrangements of five equal gains, two are as extreme."""
    found = compare_rankings(figures([0.0] * 5), figures([0.5] * 5))
    assert (found.difference, found.low, found.high) == (0.5, 0.5, 0.5)
    assert found.p == pytest.approx(2 / 32, abs=0.01)
    assert not found.is_beyond_chance
    assert (found.gained_count, found.lost_count) == (5, 0)


def test_p_agrees_with_a_t_test_on_many_queries() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = default_rng(1)
    before = generator.random(200)
    after = before + generator.normal(0.03, 0.2, 200)
    found = compare_rankings(figures(before.tolist()), figures(after.tolist()))
    assert found.p == pytest.approx(stats.ttest_rel(after, before).pvalue, abs=0.01)
    assert found.low < found.difference < found.high
    error = (after - before).std(ddof=1) / np.sqrt(200)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_no_difference_is_within_chance_and_a_large_one_beyond() -> None:
    same = figures([0.2, 0.4, 0.6] * 10)
    assert compare_rankings(same, same).p == 1.0
    assert not compare_rankings(same, same).is_beyond_chance
    better = compare_rankings(same, {query: value + 0.1 for query, value in same.items()})
    assert better.is_beyond_chance
    assert better.p < 0.001
    worse = compare_rankings({query: value + 0.1 for query, value in same.items()}, same)
    assert worse.is_beyond_chance
    assert worse.lost_count == 30
    assert len(worse.lost) == 20


def test_other_queries_and_none_are_refused() -> None:
    for before, after in (({}, {}), ({"a": 1.0}, {"b": 1.0})):
        with pytest.raises(ValueError, match="same queries"):
            compare_rankings(before, after)
