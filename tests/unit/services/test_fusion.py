"""Min-max fusion."""

from hypothesis import given
from hypothesis import strategies as st

from services.fusion import fuse, min_max

SCORES = st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.floats(0, 100), max_size=8)
EVEN = {"sparse": 0.5, "lexical": 0.5}


def test_scaling() -> None:
    assert min_max({"a": 4.0, "b": 2.0, "c": 3.0}) == {"a": 1.0, "b": 0.0, "c": 0.5}
    assert min_max({"a": 2.0, "b": 2.0}) == {"a": 1.0, "b": 1.0}
    assert min_max({}) == {}


def test_a_list_that_is_missing_a_document_gives_it_nothing() -> None:
    fused = dict(fuse({"sparse": {"a": 3.0, "b": 1.0}, "lexical": {"c": 9.0, "a": 8.0, "d": 1.0}}, EVEN))
    assert fused == {"a": 0.5 + 0.5 * 7 / 8, "c": 0.5, "b": 0.0, "d": 0.0}


def test_only_the_ratio_of_the_weights_matters() -> None:
    lists = {"sparse": {"a": 3.0, "b": 1.0}, "lexical": {"b": 8.0, "c": 1.0}}
    assert fuse(lists, {"sparse": 7, "lexical": 3}) == fuse(lists, {"sparse": 0.7, "lexical": 0.3})


def test_equal_scores_are_ordered_by_id() -> None:
    assert [d for d, _ in fuse({"sparse": {"b": 1.0, "a": 1.0}, "lexical": {}}, EVEN)] == ["a", "b"]


@given(SCORES, SCORES, st.floats(0.01, 1), st.floats(0.01, 1))
def test_no_document_is_dropped_and_scores_lie_between_0_and_1(
    sparse: dict[str, float], lexical: dict[str, float], one: float, other: float
) -> None:
    fused = fuse({"sparse": sparse, "lexical": lexical}, {"sparse": one, "lexical": other})
    assert {document for document, _ in fused} == sparse.keys() | lexical.keys()
    assert all(-1e-9 <= score <= 1 + 1e-9 for _, score in fused)
    assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)
