"""Tests of fusion: the score scaling of each method, and properties of all methods."""

import itertools
import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.query.fusion import (
    Fusion,
    FusionMethodName,
    fuse_lists,
    interpolate_scores,
    min_max,
    reciprocal_ranks,
    z_score,
)

SCORES = st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.floats(0, 100), max_size=8)
# Integers have exact differences and quotients, so the properties hold exactly.
WHOLE = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 20).map(float), max_size=8)
SHARES = st.floats(0.01, 1)
METHODS: list[FusionMethodName] = ["min_max", "z_score", "rrf"]
FUSIONS = st.builds(Fusion, st.sampled_from(METHODS), st.integers(1, 1000))
MONOTONE = st.builds(Fusion, st.sampled_from(["min_max", "rrf"]), st.integers(1, 1000))
EVEN = {"sparse": 0.5, "lexical": 0.5}


def test_min_max() -> None:
    assert min_max({"a": 4.0, "b": 2.0, "c": 3.0}) == {"a": 1.0, "b": 0.0, "c": 0.5}
    assert min_max({"a": 2.0, "b": 2.0}) == {"a": 1.0, "b": 1.0}
    assert min_max({"a": 0.0}) == {"a": 1.0}
    assert min_max({}) == {}


def test_z_score_counts_deviations_from_the_last_hit() -> None:
    found = z_score({"a": 4.0, "b": 2.0, "c": 3.0})
    deviation = math.sqrt(2 / 3)
    assert found == {"a": pytest.approx(2 / deviation), "b": 0.0, "c": pytest.approx(1 / deviation)}
    assert z_score({"a": 2.0, "b": 2.0}) == {"a": 1.0, "b": 1.0}
    assert z_score({"a": 7.0}) == {"a": 1.0}
    assert z_score({}) == {}
    tiny = z_score({"a": 5e-324, "b": 0.0})
    assert tiny == {"a": 2.0, "b": 0.0}


def test_reciprocal_ranks_go_by_order_and_equal_scores_share_a_rank() -> None:
    assert reciprocal_ranks({"a": 4.0, "b": 2.0, "c": 3.9}) == {"a": 1.0, "c": 61 / 62, "b": 61 / 63}
    assert reciprocal_ranks({"a": 5.0, "b": 5.0, "c": 1.0}, k=1) == {"a": 1.0, "b": 1.0, "c": 2 / 4}
    assert reciprocal_ranks({"a": 7.0}) == {"a": 1.0}
    assert reciprocal_ranks({}) == {}


def test_a_list_without_a_document_adds_nothing_to_it() -> None:
    lists = {"sparse": {"a": 3.0, "b": 1.0}, "lexical": {"c": 9.0, "a": 8.0, "d": 1.0}}
    assert dict(fuse_lists(lists, EVEN)) == {"a": 0.5 + 0.5 * 7 / 8, "c": 0.5, "b": 0.0, "d": 0.0}
    assert dict(fuse_lists(lists, EVEN, Fusion("rrf", 1))) == {
        "a": pytest.approx(0.5 + 0.5 * 2 / 3),
        "c": 0.5,
        "b": pytest.approx(1 / 3),
        "d": 0.25,
    }


@pytest.mark.parametrize("method", METHODS)
def test_lists_with_one_hit_and_without_hits(method: FusionMethodName) -> None:
    fusion = Fusion(method)
    assert fuse_lists({"sparse": {"a": 3.0}, "lexical": {}}, EVEN, fusion) == [("a", 0.5)]
    assert fuse_lists({"sparse": {"a": 3.0}, "lexical": {"b": 0.1}}, EVEN, fusion) == [("a", 0.5), ("b", 0.5)]
    assert fuse_lists({"sparse": {"a": 3.0}, "lexical": {"a": 0.1}}, EVEN, fusion) == [("a", 1.0)]
    assert fuse_lists({"sparse": {}, "lexical": {}}, EVEN, fusion) == []


@pytest.mark.parametrize("method", METHODS)
def test_equal_scores_are_ordered_by_id(method: FusionMethodName) -> None:
    fused = fuse_lists({"sparse": {"b": 1.0, "a": 1.0}, "lexical": {}}, EVEN, Fusion(method))
    assert fused == [("a", 0.5), ("b", 0.5)]


@given(WHOLE, WHOLE, FUSIONS)
def test_only_the_ratio_of_the_weights_matters(
    sparse: dict[str, float], lexical: dict[str, float], fusion: Fusion
) -> None:
    lists = {"sparse": sparse, "lexical": lexical}
    assert fuse_lists(lists, {"sparse": 6, "lexical": 2}, fusion) == fuse_lists(
        lists, {"sparse": 0.75, "lexical": 0.25}, fusion
    )


@given(SCORES, SCORES, SHARES, SHARES, FUSIONS)
def test_no_document_is_dropped_and_the_best_come_first(
    sparse: dict[str, float], lexical: dict[str, float], one: float, other: float, fusion: Fusion
) -> None:
    fused = fuse_lists({"sparse": sparse, "lexical": lexical}, {"sparse": one, "lexical": other}, fusion)
    assert {document for document, _ in fused} == sparse.keys() | lexical.keys()
    assert len(fused) == len(sparse.keys() | lexical.keys())
    assert all(math.isfinite(score) and score >= 0 for _, score in fused)
    assert fusion.method == "z_score" or all(score <= 1 + 1e-9 for _, score in fused)
    assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)


@given(SCORES, SCORES, SHARES, SHARES, FUSIONS, st.randoms())
def test_the_order_of_documents_and_lists_does_not_matter(
    sparse: dict[str, float], lexical: dict[str, float], one: float, other: float, fusion: Fusion, order: random.Random
) -> None:
    weights = {"sparse": one, "lexical": other}
    shuffled = {
        name: dict(order.sample(list(scores.items()), len(scores)))
        for name, scores in (("lexical", lexical), ("sparse", sparse))
    }
    assert fuse_lists({"sparse": sparse, "lexical": lexical}, weights, fusion) == fuse_lists(shuffled, weights, fusion)


@given(WHOLE, WHOLE, FUSIONS, st.integers(1, 1000), st.integers(-1000, 1000))
def test_scale_and_offset_of_scores_do_not_matter(
    sparse: dict[str, float], lexical: dict[str, float], fusion: Fusion, unit: int, zero: int
) -> None:
    moved = {document: unit * score + zero for document, score in sparse.items()}
    before = fuse_lists({"sparse": sparse, "lexical": lexical}, EVEN, fusion)
    assert fuse_lists({"sparse": moved, "lexical": lexical}, EVEN, fusion) == before


@given(SCORES, SCORES, SHARES, SHARES, FUSIONS)
def test_a_document_better_in_every_list_ranks_higher(
    sparse: dict[str, float], lexical: dict[str, float], one: float, other: float, fusion: Fusion
) -> None:
    lists = {"sparse": sparse, "lexical": lexical}
    fused = dict(fuse_lists(lists, {"sparse": one, "lexical": other}, fusion))
    for upper, lower in itertools.permutations(fused, 2):
        pairs = [(scores.get(upper), scores.get(lower)) for scores in lists.values()]
        if all(b is None or (a is not None and a >= b) for a, b in pairs):
            assert fused[upper] >= fused[lower]


@given(WHOLE, WHOLE, MONOTONE, st.integers(1, 30), st.data())
def test_a_higher_score_never_lowers_the_rank(
    sparse: dict[str, float], lexical: dict[str, float], fusion: Fusion, more: int, data: st.DataObject
) -> None:
    assume(sparse)
    chosen = data.draw(st.sampled_from(sorted(sparse)))
    raised = {**sparse, chosen: sparse[chosen] + more}
    before = dict(fuse_lists({"sparse": sparse, "lexical": lexical}, EVEN, fusion))
    after = dict(fuse_lists({"sparse": raised, "lexical": lexical}, EVEN, fusion))
    assert after[chosen] >= before[chosen]
    for other, score in before.items():
        if score < before[chosen]:
            assert after[other] < after[chosen]
        if score == before[chosen]:
            assert after[other] <= after[chosen]


def test_with_z_scores_a_higher_score_may_lower_the_rank() -> None:
    """The docstring of `z_score` states the reason. A random search found this example."""
    lexical = {"a": 0.0, "b": 7.0, "c": 2.0}

    def first(score: float) -> str:
        lists = {"sparse": {"a": score, "b": 1.0, "c": 3.0}, "lexical": lexical}
        return fuse_lists(lists, EVEN, Fusion("z_score"))[0][0]

    assert (first(7.0), first(9.0)) == ("a", "b")


HITS = [("a", 9.0), ("b", 5.0), ("c", 1.0)]


def test_weight_0_keeps_the_order_and_weight_1_takes_the_rerank_order() -> None:
    rerank_scores = {"a": 0.1, "b": 0.2, "c": 0.9}
    assert interpolate_scores(HITS, rerank_scores, 0.0) == [("a", 1.0), ("b", 0.5), ("c", 0.0)]
    assert [name for name, _ in interpolate_scores(HITS, rerank_scores, 1.0)] == ["c", "b", "a"]


def test_a_document_without_a_rerank_score_keeps_its_score() -> None:
    assert dict(interpolate_scores(HITS, {"a": 0.1, "c": 0.9}, 0.5)) == {"a": 0.5, "b": 0.5, "c": 0.5}
    assert interpolate_scores(HITS, {}, 0.7) == [("a", 1.0), ("b", 0.5), ("c", 0.0)]


def test_interpolating_no_hits() -> None:
    assert interpolate_scores([], {"a": 1.0}, 0.5) == []


DOCUMENT_SCORES = st.dictionaries(st.text(max_size=3), st.floats(-1e6, 1e6), max_size=8)


@given(DOCUMENT_SCORES, DOCUMENT_SCORES, st.floats(0, 1))
def test_interpolated_scores_are_sorted_and_between_0_and_1(
    own: dict[str, float], rerank_scores: dict[str, float], weight: float
) -> None:
    ranked = interpolate_scores(list(own.items()), rerank_scores, weight)
    assert sorted(name for name, _ in ranked) == sorted(own)
    scores = [score for _, score in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in scores)
