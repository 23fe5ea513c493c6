"""Two scores of the same documents on one scale."""

from hypothesis import given
from hypothesis import strategies as st

from services.query.fusion import interpolate_scores

FOUND = [("a", 9.0), ("b", 5.0), ("c", 1.0)]


def test_no_weight_keeps_the_order_and_all_of_it_takes_the_opinions() -> None:
    opinion = {"a": 0.1, "b": 0.2, "c": 0.9}
    assert interpolate_scores(FOUND, opinion, 0.0) == [("a", 1.0), ("b", 0.5), ("c", 0.0)]
    assert [name for name, _ in interpolate_scores(FOUND, opinion, 1.0)] == ["c", "b", "a"]


def test_a_document_without_an_opinion_keeps_its_own_score() -> None:
    assert dict(interpolate_scores(FOUND, {"a": 0.1, "c": 0.9}, 0.5)) == {"a": 0.5, "b": 0.5, "c": 0.5}
    assert interpolate_scores(FOUND, {}, 0.7) == [("a", 1.0), ("b", 0.5), ("c", 0.0)]


def test_nothing_to_order() -> None:
    assert interpolate_scores([], {"a": 1.0}, 0.5) == []


SCORES = st.dictionaries(st.text(max_size=3), st.floats(-1e6, 1e6), max_size=8)


@given(SCORES, SCORES, st.floats(0, 1))
def test_every_document_comes_once_best_first_between_0_and_1(
    own: dict[str, float], opinion: dict[str, float], weight: float
) -> None:
    found = interpolate_scores(list(own.items()), opinion, weight)
    assert sorted(name for name, _ in found) == sorted(own)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in scores)
