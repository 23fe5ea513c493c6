"""Hard negatives, and exact rankings by teachers' vectors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training import mining
from models.training.mining import (
    IndexCandidates,
    MiningRule,
    VectorCandidates,
    load_candidate_lists,
    mine_negatives,
    passage_documents,
    passage_id,
)
from models.training.pairs import Pair, PairSet, Rows
from models.training.teacher_vectors import DenseTeacherVectors, SparseRows, SparseTeacherVectors
from services.errors import InvalidInput

COUNT = 30


def numbered(count: int = COUNT) -> PairSet:
    """Return pairs: query i has passage i, and query 0 also has passage 1."""
    return PairSet.of([*(Pair(f"q{n}", f"p{n}") for n in range(count)), Pair("q0", "p1")])


def vectors(queries: int = COUNT, passages: int = COUNT, seed: int = 0) -> DenseTeacherVectors:
    """Return vectors whose cosine is higher for nearer numbers: a query's own passage is first."""
    angles = np.linspace(0.1, 1.2, max(queries, passages))
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    return DenseTeacherVectors("near", points[:queries], points[:passages])


PAIRS = numbered()
LISTS = VectorCandidates(vectors(), "1").best(np.arange(COUNT), 20)


@given(st.integers(1, 6), st.integers(0, 5), st.integers(6, 20), st.integers(0, 3))
def test_negatives_come_from_the_ranks_and_are_no_answers(count: int, skip: int, depth: int, seed: int) -> None:
    found = mine_negatives(PAIRS, [LISTS], MiningRule(count, depth, skip, None, seed))
    assert (found.rows.dtype, found.rows.shape) == (np.int32, (len(PAIRS), count))
    mined = 0
    for link, row in enumerate(found.rows):
        query = int(PAIRS.query_rows[link])
        allowed = set(LISTS[query, skip:depth].tolist()) - {query} - ({1} if query == 0 else set())
        assert len(set(row.tolist())) == count
        assert PAIRS.passage_rows[link] not in row
        if query == 0:
            assert not {0, 1} & set(row.tolist())
        from_ranks = set(row.tolist()) & allowed
        assert len(from_ranks) >= min(count, len(allowed))
        mined += min(count, len(allowed))
    assert found.counts["mined"] == mined
    assert found.counts["missing"] == 0
    assert found.counts["random"] == found.rows.size - mined


def test_the_same_seed_draws_the_same() -> None:
    rule = MiningRule(3, 20, 1, None, 5)
    first = mine_negatives(PAIRS, [LISTS], rule).rows
    np.testing.assert_array_equal(mine_negatives(PAIRS, [LISTS], rule).rows, first)
    other = mine_negatives(PAIRS, [LISTS], MiningRule(3, 20, 1, None, 6)).rows
    assert (other != first).any()


def test_negatives_are_drawn_at_random() -> None:
    found = mine_negatives(PAIRS, [LISTS], MiningRule(2, 20, 1, None, 0)).rows
    firsts = sum(
        set(row.tolist()) == set(LISTS[q, 1:3].tolist()) for row, q in zip(found, PAIRS.query_rows, strict=True)
    )
    assert firsts < len(PAIRS) / 3


def test_candidates_above_the_ceiling_are_rejected() -> None:
    teacher = vectors()
    found = mine_negatives(PAIRS, [LISTS], MiningRule(3, 20, 0, 0.99), teacher)
    scores = teacher.scores(np.arange(COUNT), np.arange(COUNT))
    for link, row in enumerate(found.rows):
        query, own = int(PAIRS.query_rows[link]), int(PAIRS.passage_rows[link])
        assert (scores[query, row[row >= 0]] <= 0.99 * scores[query, own] + 1e-6).all()
    assert found.counts["too_good"] > 0
    # Control: without a teacher, such candidates are drawn.
    loose = mine_negatives(PAIRS, [LISTS], MiningRule(3, 20, 0, 0.99)).rows
    links = np.arange(len(PAIRS))
    assert (
        scores[PAIRS.query_rows[links][:, None], loose] > 0.99 * scores[PAIRS.query_rows, PAIRS.passage_rows][:, None]
    ).any()


def test_the_ceiling_of_a_negative_score_is_the_score() -> None:
    pairs = PairSet.of([Pair("q0", "p0"), Pair("q1", "p1"), Pair("q2", "p2")])
    points = np.array([[1.0], [0.1], [0.2]], dtype=np.float16)
    teacher = DenseTeacherVectors("x", points, np.array([[-0.5], [-0.47], [-0.9]], dtype=np.float16))
    found = mine_negatives(
        pairs, [np.array([[1, 2], [0, 2], [0, 1]], dtype=np.int32)], MiningRule(2, 2, 0, 0.9), teacher
    )
    assert found.rows[0].tolist() == [2, -1]


def test_several_lists_form_one_pool() -> None:
    one = np.array([[1, 2]] * COUNT, dtype=np.int32)
    two = np.array([[2, 3]] * COUNT, dtype=np.int32)
    found = mine_negatives(PAIRS, [one, two], MiningRule(3, 2, 0, None)).rows
    assert set(found[10].tolist()) == {1, 2, 3}


def test_short_lists_are_filled_at_random_then_with_no_passage() -> None:
    none = np.full((COUNT, 4), -1, dtype=np.int32)
    filled = mine_negatives(PAIRS, [none], MiningRule(2, 4, 0, None))
    assert filled.counts["random"] + filled.counts["missing"] == filled.rows.size
    assert filled.counts["random"] > filled.rows.size * 0.9
    tiny = PairSet.of([Pair("q0", "p0"), Pair("q1", "p1")])
    short = mine_negatives(tiny, [np.full((2, 4), -1, dtype=np.int32)], MiningRule(2, 4, 0, None))
    assert short.rows.tolist() == [[1, -1], [0, -1]]
    assert short.counts["missing"] == 2


def test_no_pairs_have_no_negatives() -> None:
    empty = PairSet.of([])
    assert mine_negatives(empty, [np.empty((0, 5), dtype=np.int32)], MiningRule(2, 5, 0)).rows.shape == (0, 2)


@pytest.mark.parametrize("members", [{"count": 0}, {"skip": 5, "depth": 5}, {"skip": -1}, {"ceiling": 0.0}])
def test_invalid_mining_rules_are_refused(members: dict[str, int]) -> None:
    with pytest.raises(InvalidInput) as caught:
        MiningRule(**members)
    assert caught.value.code == "bad_mining"
    with pytest.raises(InvalidInput, match="one list"):
        mine_negatives(PAIRS, [], MiningRule())


class Counting:
    name = "counting"

    def __init__(self, fingerprint: str = "1") -> None:
        self.fingerprint = fingerprint
        self.query_count = 0

    def best(self, query_rows: np.ndarray, depth: int) -> Rows:
        self.query_count += query_rows.size
        return np.tile(np.arange(depth, dtype=np.int32), (query_rows.size, 1))


def test_lists_are_kept_for_the_same_source_depth_and_texts(tmp_path: Path) -> None:
    source = Counting()
    done: list[int] = []
    first = load_candidate_lists(source, PAIRS, 4, tmp_path, done.append)
    assert (first.shape, source.query_count, done) == ((COUNT, 4), COUNT, [COUNT, COUNT])
    np.testing.assert_array_equal(load_candidate_lists(source, PAIRS, 4, tmp_path), first)
    assert source.query_count == COUNT
    for other, pairs, depth in ((Counting("2"), PAIRS, 4), (Counting(), PAIRS, 5), (Counting(), numbered(29), 4)):
        load_candidate_lists(other, pairs, depth, tmp_path)
        assert other.query_count == len(pairs.queries)


def test_hits_of_an_index_become_rows_and_unknown_hits_are_skipped() -> None:
    encoded: list[str] = []

    def search(texts: Sequence[str], depth: int) -> list[list[str]]:
        encoded.extend(texts)
        return [[passage_id("p3"), "stranger", passage_id("p1"), passage_id("p2")][: depth + 1], []]

    source = IndexCandidates(PAIRS, search, name="index", fingerprint="1")
    assert source.best(np.array([4, 2]), 3).tolist() == [[3, 1, 2], [-1, -1, -1]]
    assert encoded == ["q4", "q2"]
    documents = list(passage_documents(PAIRS))
    assert documents[3] == {"id": passage_id("p3"), "text": "p3"}
    assert len({one["id"] for one in documents}) == COUNT


def dense(seed: int, queries: int, passages: int) -> DenseTeacherVectors:
    rng = np.random.default_rng(seed)
    return DenseTeacherVectors("x", *(rng.standard_normal((n, 6)).astype(np.float16) for n in (queries, passages)))


def sparse(seed: int, queries: int, passages: int) -> SparseTeacherVectors:
    rng = np.random.default_rng(seed)

    def rows(count: int) -> SparseRows:
        lengths = rng.integers(0, 5, count)
        ids = [np.sort(rng.choice(12, length, replace=False)) for length in lengths]
        weights = rng.uniform(0.1, 2, int(lengths.sum()))
        flat = np.concatenate([*ids, np.empty(0, int)])
        return SparseRows.of(lengths, flat.astype(np.int32), weights.astype(np.float32))

    return SparseTeacherVectors("x", rows(queries), rows(passages))


@given(st.integers(0, 100), st.integers(1, 40), st.integers(1, 12))
def test_dense_rankings_equal_plain_sorting(seed: int, passages: int, depth: int) -> None:
    vectors = dense(seed, 5, passages)
    rows = np.array([4, 0, 4])
    found = VectorCandidates(vectors, "f").best(rows, depth)
    assert (found.dtype, found.shape) == (np.int32, (3, depth))
    scores = vectors.scores(rows, np.arange(passages))
    for row, line in zip(found, scores, strict=True):
        listed = row[row >= 0]
        assert listed.size == min(depth, passages)
        np.testing.assert_array_equal(line[listed], np.sort(line)[::-1][: listed.size])
        assert (row[listed.size :] == -1).all()


def test_rankings_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = dense(1, 5, 40)
    rows = np.arange(5)
    whole = VectorCandidates(vectors, "f").best(rows, 7)
    monkeypatch.setattr(mining, "BLOCK_SCORES", 5 * 9)
    np.testing.assert_array_equal(VectorCandidates(vectors, "f").best(rows, 7), whole)


@given(st.integers(0, 100), st.integers(0, 40), st.integers(1, 12))
def test_sparse_rankings_hold_passages_that_share_a_piece(seed: int, passages: int, depth: int) -> None:
    vectors = sparse(seed, 5, passages)
    rows = np.array([4, 0])
    found = VectorCandidates(vectors, "f").best(rows, depth)
    scores = vectors.scores(rows, np.arange(passages))
    for row, line in zip(found, scores, strict=True):
        listed = row[row >= 0]
        assert listed.size == min(depth, int((line > 0).sum()))
        np.testing.assert_allclose(line[listed], np.sort(line)[::-1][: listed.size], rtol=1e-6)


def test_pieces_without_postings_find_nothing() -> None:
    one = SparseRows.of(np.array([1]), np.array([9], dtype=np.int32), np.ones(1, dtype=np.float32))
    none = SparseRows.of(np.array([0]), np.empty(0, np.int32), np.empty(0, np.float32))
    assert VectorCandidates(SparseTeacherVectors("x", one, none), "f").best(np.array([0]), 2).tolist() == [[-1, -1]]
