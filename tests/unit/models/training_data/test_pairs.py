"""Pair sets: distinct texts, links between them, and splits that leak nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.pairs import Pair, PairSet, join_pair_sets, split_pairs
from services.errors import InvalidInput

letters = st.text("abcdef", min_size=1, max_size=2)
pair_lists = st.lists(st.builds(Pair, letters, letters.map(lambda text: f"p{text}"), st.sampled_from(["x", "y"])))


@given(pair_lists)
def test_every_distinct_pair_is_one_link_and_every_text_is_there_once(pairs: list[Pair]) -> None:
    found = PairSet.of(pairs)
    distinct = {(pair.query, pair.passage) for pair in pairs}
    links = [found.pair(link) for link in range(len(found))]
    assert {(pair.query, pair.passage) for pair in links} == distinct
    assert len(links) == len(distinct)
    assert found.repeated == len(pairs) - len(distinct)
    assert sorted(found.queries) == sorted({pair.query for pair in pairs})
    assert sorted(found.passages) == sorted({pair.passage for pair in pairs})
    assert found.query_rows.dtype == found.passage_rows.dtype == found.origin_rows.dtype == np.int32


def test_texts_that_differ_in_white_space_only_are_one() -> None:
    found = PairSet.of([Pair("a  b", "c\nd"), Pair("a b", "c d"), Pair("a b", "A\tb"), Pair("same", "same ")])
    assert found.queries == ["a  b"]
    assert found.passages == ["c\nd", "A\tb"]
    assert (found.repeated, found.identical) == (1, 1)


def test_counts_by_origin() -> None:
    found = PairSet.of([Pair("a", "p", "x"), Pair("b", "p", "y"), Pair("c", "p", "x")])
    assert found.counts() == {"x": 2, "y": 1}


def test_taking_links_leaves_no_other_text() -> None:
    found = PairSet.of([Pair("a", "p", "x"), Pair("b", "q", "y"), Pair("c", "p", "x")]).take(np.array([2, 1]))
    assert [found.pair(link) for link in range(2)] == [Pair("c", "p", "x"), Pair("b", "q", "y")]
    assert sorted(found.queries) == ["b", "c"]
    none = found.take(np.zeros(2, dtype=bool))
    assert (len(none), none.queries, none.passages) == (0, [], [])


def test_joined_sets_share_texts() -> None:
    joined = join_pair_sets([PairSet.of([Pair("a", "p", "x")]), PairSet.of([Pair("b", "p", "y"), Pair("a", "p", "y")])])
    assert joined.passages == ["p"]
    assert joined.counts() == {"x": 1, "y": 1}
    assert joined.repeated == 1


def test_the_fingerprint_follows_texts_links_and_origins() -> None:
    pairs = [Pair("a", "p", "x"), Pair("b", "q", "x")]
    first = PairSet.of(pairs).fingerprint
    assert PairSet.of(pairs).fingerprint == first
    changed = [
        pairs[::-1],
        [*pairs, Pair("a", "q", "x")],
        [pairs[0], Pair("b", "q", "y")],
        [pairs[0], Pair("b", "r", "x")],
    ]
    assert len({first, *(PairSet.of(other).fingerprint for other in changed)}) == 5


def random_pairs(seed: int, count: int = 400, queries: int = 600, passages: int = 600) -> PairSet:
    rng = np.random.default_rng(seed)
    return PairSet.of(
        Pair(f"q{query}", f"p{passage}", "x")
        for query, passage in zip(rng.integers(0, queries, count), rng.integers(0, passages, count), strict=True)
    )


@given(st.integers(0, 50), st.floats(0.02, 0.5))
def test_no_text_is_on_both_sides(seed: int, share: float) -> None:
    pairs = random_pairs(seed)
    parts = split_pairs(pairs, share, seed)
    assert not set(parts.train.queries) & set(parts.held_out.queries)
    assert not set(parts.train.passages) & set(parts.held_out.passages)
    assert len(parts.train) + len(parts.held_out) == len(pairs)
    assert 0 < len(parts.held_out) <= max(1, round(share * len(pairs)))


def test_a_split_depends_on_its_seed_only() -> None:
    pairs = random_pairs(1)
    first, again, other = (split_pairs(pairs, 0.1, seed).held_out for seed in (3, 3, 4))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert len(split_pairs(pairs, 0.4, 3, most=7).held_out) <= 7


def test_a_giant_family_stays_in_training() -> None:
    giant = [Pair("introduction", f"section {number}") for number in range(90)]
    small = [Pair(f"title {number}", f"text {number}") for number in range(10)]
    parts = split_pairs(PairSet.of(giant + small), 0.1, 0)
    assert "introduction" in parts.train.queries
    assert len(parts.held_out) == 10


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        split_pairs(random_pairs(0), share, 0)


@pytest.mark.parametrize("pairs", [[], [Pair("a", "p")], [Pair("a", "p"), Pair("a", "q"), Pair("b", "q")]])
def test_what_cannot_be_split_is_refused(pairs: list[Pair]) -> None:
    with pytest.raises(InvalidInput, match="cannot be split"):
        split_pairs(PairSet.of(pairs), 0.5, 0)
