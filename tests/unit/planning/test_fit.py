"""Coefficients come back out of points that were made with them, and bad points are refused."""

import pytest

from cli.planning.fit import MODES, Line, Observed, errors, fitted

STORED, SEARCHED, CLOCK = Line(900, 20), Line(300, 8), Line(3, 25)


def observed(documents: int, pieces: int, shards: int = 1) -> Observed:
    clock = CLOCK.at(documents / shards / 1e6)
    row = {
        "p50": clock,
        "p99": 2.5 * clock,
        "mean": clock,
        "node": 0.8 * shards + 30 * documents / 1e6,
        "api": 0.9,
    }
    return Observed(
        documents,
        pieces,
        shards,
        pieces / 1.28,
        round(STORED.at(pieces) * documents),
        round(SEARCHED.at(pieces) * documents),
        dict.fromkeys(MODES, row),
    )


FITTED_ON = [observed(10_000, 64), observed(100_000, 64), observed(40_000, 192), observed(40_000, 64, 4)]


def test_what_points_were_made_with_comes_back() -> None:
    found = fitted(FITTED_ON)
    assert found.pieces_a_word == 1.28
    assert (found.stored, found.searched) == (STORED, SEARCHED)
    cost = found.search["hybrid"]
    assert (cost.node_by_shard, cost.node_by_million, cost.api, cost.tail) == (0.8, 30, 0.9, 2.5)
    assert cost.clock == CLOCK
    assert set(errors(found, observed(1_000_000, 128, 2)).values()) == {1.0}


def test_a_prediction_that_is_off_is_told_so() -> None:
    twice = observed(80_000, 64)
    twice = Observed(
        twice.documents,
        twice.pieces,
        twice.shards,
        twice.words,
        2 * twice.stored,
        twice.searched,
        {mode: {name: 2 * value for name, value in row.items()} for mode, row in twice.modes.items()},
    )
    found = errors(fitted(FITTED_ON), twice)
    assert (found["stored"], found["searched"], found["sparse node"], found["lexical p99"]) == (0.5, 1.0, 0.5, 0.5)


def test_nothing_costs_less_than_nothing() -> None:
    """Noise can make a larger index look cheaper; the slope is 0 then, and not below."""
    small, large = observed(10_000, 64), observed(100_000, 64)
    swapped = [
        Observed(10_000, 64, 1, 50, small.stored, small.searched, large.modes),
        Observed(100_000, 64, 1, 50, large.stored, large.searched, small.modes),
        observed(40_000, 192),
        observed(40_000, 64, 4),
    ]
    cost = fitted(swapped).search["sparse"]
    assert min(cost.clock.floor, cost.clock.slope, cost.node_by_shard, cost.node_by_million) >= 0


@pytest.mark.parametrize(
    "points",
    [FITTED_ON[:2], [observed(10_000, 64), observed(10_000, 128, 2)], [observed(10_000, 64), observed(50_000, 128)]],
)
def test_points_that_tell_nothing_apart_are_refused(points: list[Observed]) -> None:
    with pytest.raises(ValueError, match="two"):
        fitted(points)
