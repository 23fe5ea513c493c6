"""Consistency filtering: what a teacher finds stays, what it cannot tell apart goes."""

import numpy as np
import pytest

from models.training import mining
from models.training.mining import filter_consistent
from models.training.pairs import Pair, PairSet
from models.training.teacher_vectors import DenseTeacherVectors
from services.errors import InvalidInput

COUNT = 40


def told(pairs: PairSet, scores: np.ndarray) -> DenseTeacherVectors:
    """Vectors whose products are these scores [queries, passages]."""
    return DenseTeacherVectors("told", scores.astype(np.float16), np.eye(len(pairs.passages), dtype=np.float16))


def numbered(count: int = COUNT) -> PairSet:
    return PairSet.of(Pair(f"q{n}", f"p{n}", "even" if n % 2 == 0 else "odd") for n in range(count))


PAIRS = numbered()
FOUND = np.eye(COUNT) + 0.01 * np.arange(COUNT)[None, :] / COUNT


def test_pairs_whose_passage_is_found_stay() -> None:
    scores = FOUND.copy()
    scores[3, 3] = -1.0
    scores[4, [4, 7, 9]] = [0.5, 0.6, 0.7]
    found = filter_consistent(PAIRS, [told(PAIRS, scores)], [1.0], 2)
    assert found.ranks[[0, 3, 4]].tolist() == [0, COUNT - 1, 2]
    assert np.flatnonzero(~found.links).tolist() == [3, 4]
    assert found.by_origin == {"even": (19, 20), "odd": (19, 20)}
    assert found.as_json() == {
        "kept": 38,
        "of": 40,
        "origins": {"even": {"kept": 19, "of": 20}, "odd": {"kept": 19, "of": 20}},
    }


def test_a_query_of_which_a_teacher_knows_nothing_does_not_pass() -> None:
    scores = FOUND.copy()
    scores[5] = 0.0
    assert not filter_consistent(PAIRS, [told(PAIRS, scores)], [1.0], 3).links[5]


def test_other_answers_of_the_query_do_not_count() -> None:
    pairs = PairSet.of([Pair("q", "a"), Pair("q", "b"), Pair("q", "c"), Pair("r", "d")])
    scores = np.array([[0.7, 0.8, 0.9, 0.1], [0.0, 0.0, 0.0, 1.0]])
    assert filter_consistent(pairs, [told(pairs, scores)], [1.0], 1).links.all()
    assert not filter_consistent(
        PairSet.of([Pair("q", "a"), Pair("r", "b")]), [told(pairs, scores[:, :4])], [1.0], 1
    ).links[0]


def test_teachers_are_scaled_before_they_are_summed() -> None:
    wrong_but_loud = told(PAIRS, np.roll(FOUND, 1, axis=1) * 1000)
    right = told(PAIRS, FOUND)
    assert not filter_consistent(PAIRS, [wrong_but_loud], [1.0], 1).links.any()
    assert filter_consistent(PAIRS, [wrong_but_loud, right], [0.4, 0.6], 1).links.all()


def test_a_sample_ranks_pairs_that_are_not_in_it() -> None:
    found = filter_consistent(PAIRS, [told(PAIRS, FOUND)], [1.0], 1, sample=5, seed=1)
    assert found.links.all()
    reversed_ = filter_consistent(PAIRS, [told(PAIRS, -FOUND)], [1.0], 1, sample=5, seed=1)
    assert not reversed_.links.any()
    assert int(reversed_.ranks.max()) == 5


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).standard_normal((COUNT, COUNT))
    whole = filter_consistent(PAIRS, [told(PAIRS, scores)], [1.0], 3).ranks
    monkeypatch.setattr(mining, "BLOCK_SCORES", COUNT * 3)
    done: list[int] = []
    np.testing.assert_array_equal(
        filter_consistent(PAIRS, [told(PAIRS, scores)], [1.0], 3, done=done.append).ranks, whole
    )
    assert done[-1] == COUNT
    assert len(done) > 10


def test_nothing_to_filter() -> None:
    empty = PairSet.of([])
    assert filter_consistent(empty, [told(empty, np.empty((0, 0)))], [1.0], 3).as_json() == {
        "kept": 0,
        "of": 0,
        "origins": {},
    }


@pytest.mark.parametrize(("within", "sample"), [(0, None), (1, 0)])
def test_impossible_filters_are_refused(within: int, sample: int | None) -> None:
    with pytest.raises(InvalidInput) as caught:
        filter_consistent(PAIRS, [told(PAIRS, FOUND)], [1.0], within, sample=sample)
    assert caught.value.code == "bad_filter"
