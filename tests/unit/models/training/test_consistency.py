"""The consistency filter keeps pairs whose passage the teachers rank high for the query."""

import numpy as np
import pytest

from models.training import consistency
from models.training.consistency import filter_consistent
from models.training.pairs import Pair, PairSet
from models.training.teacher_vectors import DenseTeacherVectors
from services.errors import InvalidInput

PAIR_COUNT = 40


def with_scores(pairs: PairSet, scores: np.ndarray) -> DenseTeacherVectors:
    """Return vectors whose dot products are these scores [queries, passages]."""
    return DenseTeacherVectors("told", scores.astype(np.float16), np.eye(len(pairs.passages), dtype=np.float16))


def numbered_pairs(count: int = PAIR_COUNT) -> PairSet:
    return PairSet.of(Pair(f"q{n}", f"p{n}", "even" if n % 2 == 0 else "odd") for n in range(count))


NUMBERED = numbered_pairs()
FOUND = np.eye(PAIR_COUNT) + 0.01 * np.arange(PAIR_COUNT)[None, :] / PAIR_COUNT


def test_consistent_pairs_are_kept() -> None:
    scores = FOUND.copy()
    scores[3, 3] = -1.0
    scores[4, [4, 7, 9]] = [0.5, 0.6, 0.7]
    found = filter_consistent(NUMBERED, [with_scores(NUMBERED, scores)], [1.0], 2)
    assert found.ranks[[0, 3, 4]].tolist() == [0, PAIR_COUNT - 1, 2]
    assert np.flatnonzero(~found.links).tolist() == [3, 4]
    assert found.by_origin == {"even": (19, 20), "odd": (19, 20)}
    assert found.as_json() == {
        "kept": 38,
        "of": 40,
        "origins": {"even": {"kept": 19, "of": 20}, "odd": {"kept": 19, "of": 20}},
    }


def test_a_query_with_tied_scores_is_not_consistent() -> None:
    scores = FOUND.copy()
    scores[5] = 0.0
    assert not filter_consistent(NUMBERED, [with_scores(NUMBERED, scores)], [1.0], 3).links[5]


def test_other_answers_of_the_query_do_not_count_in_its_rank() -> None:
    pairs = PairSet.of([Pair("q", "a"), Pair("q", "b"), Pair("q", "c"), Pair("r", "d")])
    scores = np.array([[0.7, 0.8, 0.9, 0.1], [0.0, 0.0, 0.0, 1.0]])
    assert filter_consistent(pairs, [with_scores(pairs, scores)], [1.0], 1).links.all()
    assert not filter_consistent(
        PairSet.of([Pair("q", "a"), Pair("r", "b")]), [with_scores(pairs, scores[:, :4])], [1.0], 1
    ).links[0]


def test_teachers_are_scaled_before_they_are_summed() -> None:
    wrong_but_loud = with_scores(NUMBERED, np.roll(FOUND, 1, axis=1) * 1000)
    right = with_scores(NUMBERED, FOUND)
    assert not filter_consistent(NUMBERED, [wrong_but_loud], [1.0], 1).links.any()
    assert filter_consistent(NUMBERED, [wrong_but_loud, right], [0.4, 0.6], 1).links.all()


def test_a_sample_also_ranks_pairs_outside_it() -> None:
    found = filter_consistent(NUMBERED, [with_scores(NUMBERED, FOUND)], [1.0], 1, sample=5, seed=1)
    assert found.links.all()
    reversed_ = filter_consistent(NUMBERED, [with_scores(NUMBERED, -FOUND)], [1.0], 1, sample=5, seed=1)
    assert not reversed_.links.any()
    assert int(reversed_.ranks.max()) == 5


def test_filtering_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).standard_normal((PAIR_COUNT, PAIR_COUNT))
    whole = filter_consistent(NUMBERED, [with_scores(NUMBERED, scores)], [1.0], 3).ranks
    monkeypatch.setattr(consistency, "BLOCK_SCORES", PAIR_COUNT * 3)
    done: list[int] = []
    np.testing.assert_array_equal(
        filter_consistent(NUMBERED, [with_scores(NUMBERED, scores)], [1.0], 3, done=done.append).ranks,
        whole,
    )
    assert done[-1] == PAIR_COUNT
    assert len(done) > 10


def test_filtering_no_pairs() -> None:
    empty = PairSet.of([])
    assert filter_consistent(empty, [with_scores(empty, np.empty((0, 0)))], [1.0], 3).as_json() == {
        "kept": 0,
        "of": 0,
        "origins": {},
    }


@pytest.mark.parametrize(("within", "sample"), [(0, None), (1, 0)])
def test_invalid_filters_are_refused(within: int, sample: int | None) -> None:
    with pytest.raises(InvalidInput) as caught:
        filter_consistent(NUMBERED, [with_scores(NUMBERED, FOUND)], [1.0], within, sample=sample)
    assert caught.value.code == "bad_filter"
