"""Fitted coefficients equal the coefficients that made the points. Bad points are refused."""

from dataclasses import astuple

import pytest

from benchmarks.capacity_fit import (
    ObservedIndex,
    ObservedLoad,
    fit_coefficients,
    load_prediction_ratio,
    prediction_ratios,
)
from cli.planning import MODES, Cost, LinearCost

STORED, SEARCHED, CLOCK, WORK = LinearCost(900, 20), LinearCost(300, 8), Cost(3, 0.4, 25), Cost(1.5, 0.8, 30)
LOAD = [ObservedLoad(0.2, 2 * 10 / 0.8, 10), ObservedLoad(0.6, 2 * 10 / 0.4, 10)]


def observed(documents: int, pieces: int, shards: int = 1) -> ObservedIndex:
    clock = CLOCK.of(documents / shards, shards)
    row = {
        "p50": clock,
        "p99": 2.5 * clock,
        "mean": clock,
        "node": WORK.of(documents, shards),
        "api": 0.9,
    }
    return ObservedIndex(
        documents,
        pieces,
        shards,
        pieces / 1.28,
        round(STORED.at(pieces) * documents),
        round(SEARCHED.at(pieces) * documents),
        dict.fromkeys(MODES, row),
    )


FITTED_ON = [observed(10_000, 64), observed(100_000, 64), observed(40_000, 192), observed(40_000, 64, 4)]


def test_the_fit_recovers_the_coefficients() -> None:
    found = fit_coefficients(FITTED_ON, LOAD)
    assert found.pieces_a_word == 1.28
    assert (found.stored, found.searched) == (STORED, SEARCHED)
    cost = found.search["hybrid"]
    assert (cost.node, cost.clock, cost.api, cost.tail) == (WORK, CLOCK, 0.9, 2.5)
    assert found.at_random == 2
    assert load_prediction_ratio(found, LOAD[0]) == 1
    assert found.p99("hybrid", 1e6, 1, 0.5) == pytest.approx(2 * 2.5 * (3 + 0.4 + 25) / 0.5)
    assert set(prediction_ratios(found, observed(1_000_000, 128, 2)).values()) == {1.0}


def test_a_wrong_prediction_is_reported() -> None:
    twice = observed(80_000, 64)
    twice = ObservedIndex(
        twice.documents,
        twice.pieces,
        twice.shards,
        twice.words,
        2 * twice.stored,
        twice.searched,
        {mode: {name: 2 * value for name, value in row.items()} for mode, row in twice.modes.items()},
    )
    found = prediction_ratios(fit_coefficients(FITTED_ON, LOAD), twice)
    assert (found["stored"], found["searched"], found["sparse node"], found["lexical p99"]) == (0.5, 1.0, 0.5, 0.5)


def test_no_cost_is_negative() -> None:
    """If noise makes a larger index look cheaper, the slope is 0 and not negative."""
    small, large = observed(10_000, 64), observed(100_000, 64)
    swapped = [
        ObservedIndex(10_000, 64, 1, 50, small.stored, small.searched, large.modes),
        ObservedIndex(100_000, 64, 1, 50, large.stored, large.searched, small.modes),
        observed(40_000, 192),
        observed(40_000, 64, 4),
    ]
    cost = fit_coefficients(swapped, LOAD).search["sparse"]
    assert min(*astuple(cost.clock), *astuple(cost.node)) >= 0


@pytest.mark.parametrize(
    "points",
    [FITTED_ON[:2], [observed(10_000, 64), observed(10_000, 128, 2)], [observed(10_000, 64), observed(50_000, 128)]],
)
def test_points_that_determine_no_coefficients_are_refused(points: list[ObservedIndex]) -> None:
    with pytest.raises(ValueError, match="two"):
        fit_coefficients(points, LOAD)


def test_points_without_cost_are_refused() -> None:
    one = observed(10_000, 64)
    nothing = ObservedIndex(
        one.documents, one.pieces, one.shards, one.words, one.stored, one.searched,
        {mode: {**row, "node": 0.0} for mode, row in one.modes.items()},
    )  # fmt: skip
    with pytest.raises(ValueError, match="above 0"):
        fit_coefficients([nothing, *FITTED_ON], LOAD)


def test_an_index_must_have_been_under_load() -> None:
    with pytest.raises(ValueError, match="under load"):
        fit_coefficients(FITTED_ON, [])
