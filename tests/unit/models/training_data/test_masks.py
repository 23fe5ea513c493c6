"""Which columns of a batch are no negatives."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.training.batches import PositiveLinks, mask_false_negatives
from models.training.pairs import Pair, PairSet

# query 0 answers: passages 0 and 1; query 1: passage 2; query 2: passage 0
PAIRS = PairSet.of([Pair("a", "p0"), Pair("a", "p1"), Pair("b", "p2"), Pair("c", "p0")])
POSITIVES = PositiveLinks(PAIRS)


def masked(queries: list[int], passages: list[int], own: list[int] | None = None) -> list[list[int]]:
    mask = mask_false_negatives(
        POSITIVES, np.array(queries), np.array(passages), None if own is None else np.array(own)
    )
    assert mask.shape == (len(queries), len(passages))
    return [np.flatnonzero(row).tolist() for row in mask]


def test_known_links() -> None:
    found = POSITIVES.holds(np.array([0, 0, 0, 1, 2, -1]), np.array([0, 1, 2, 2, -1, 0]))
    assert found.tolist() == [True, True, False, True, False, False]
    assert not PositiveLinks(PairSet.of([])).holds(np.array([0]), np.array([0])).any()


def test_a_batch_without_any_relation_leaves_nothing_out() -> None:
    assert masked([1, 2], [2, 0]) == [[], []]


def test_another_answer_of_the_query_is_no_negative() -> None:
    assert masked([0, 1], [0, 2, 1]) == [[2], []]
    assert masked([2, 0], [0, 1]) == [[], [0]]


def test_a_passage_that_stands_twice_counts_once() -> None:
    # queries 0 and 2 share passage 0: each keeps its own column, the third query sees it once
    assert masked([0, 2, 1], [0, 0, 2]) == [[1], [0], [1]]


def test_columns_without_a_passage_are_left_out() -> None:
    assert masked([1, 2], [2, 0, -1, -1]) == [[2, 3], [2, 3]]


def test_own_columns_may_stand_anywhere() -> None:
    assert masked([1, 2], [1, 0, 2], own=[2, 1]) == [[], []]


def test_the_earlier_copy_of_an_own_passage_that_is_no_known_answer_is_left_out() -> None:
    assert masked([1, 2], [0, 0], own=[1, 0]) == [[0], [1]]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.lists(st.integers(-1, 2), max_size=8))
def test_own_columns_stay_and_no_answer_is_a_negative(links: list[int], negatives: list[int]) -> None:
    queries, own_passages = PAIRS.query_rows[links], PAIRS.passage_rows[links]
    passages = np.concatenate([own_passages, np.array(negatives, dtype=np.int32)])
    mask = mask_false_negatives(POSITIVES, queries, passages)
    for row, query in enumerate(queries.tolist()):
        assert not mask[row, row]
        kept = [int(passages[column]) for column in np.flatnonzero(~mask[row]) if column != row]
        assert len(kept) == len(set(kept))
        assert -1 not in kept
        assert not any((query, passage) in {(0, 0), (0, 1), (1, 2), (2, 0)} for passage in kept)
