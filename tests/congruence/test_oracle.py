"""Test the oracle itself: it agrees with numpy's float32, and its check can fail."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.encoders.vectors import SMALLEST_WEIGHT, SparseVector, truncate_weights
from tests.congruence.oracle import Oracle, Score, check, float32, score, stored

WEIGHTS = st.floats(min_value=float(np.finfo(np.float32).tiny), max_value=2.0**100, width=32)
VECTORS = st.dictionaries(st.integers(0, 40), WEIGHTS, max_size=30)


@given(WEIGHTS)
def test_truncation_agrees_with_the_service(weight: float) -> None:
    assert stored(weight) == float(truncate_weights([weight])[0])
    assert 0 <= weight - stored(weight) <= weight / 256


@given(st.floats(allow_nan=False))
def test_float32_rounds_as_numpy_does(value: float) -> None:
    with np.errstate(over="ignore"):
        assert float32(value) == float(np.float32(value))


@given(VECTORS, VECTORS)
def test_the_service_scores_as_the_oracle_does(query: dict[int, float], document: dict[int, float]) -> None:
    """SparseVector.dot computes in double throughout, so it may differ by the rounding of each float32 product."""
    predicted = score(query, document)
    dot = SparseVector.of(list(document), list(document.values())).dot(query)
    if predicted is None:
        assert dot == 0.0
    elif predicted.high < float(np.finfo(np.float32).max):
        assert dot == pytest.approx(predicted.high, rel=2**-22, abs=1e-43)


@given(VECTORS, VECTORS)
def test_the_prediction_is_at_most_two_neighbouring_floats(query: dict[int, float], document: dict[int, float]) -> None:
    predicted = score(query, document)
    if predicted is not None and predicted.low != predicted.high:
        assert float(np.nextafter(np.float32(predicted.low), np.float32(np.inf))) == predicted.high


@given(VECTORS, VECTORS, st.randoms())
def test_every_order_of_addition_is_within_the_prediction(
    query: dict[int, float], document: dict[int, float], random: object
) -> None:
    predicted = score(query, document)
    if predicted is None:
        return
    order = list(query.keys() & document.keys())
    random.shuffle(order)  # type: ignore[attr-defined]
    total = 0.0
    for i in order:
        total += float32(float32(query[i]) * stored(document[i]))
    assert predicted.allows(float32(total))


@given(VECTORS, st.dictionaries(st.text(max_size=2), VECTORS, max_size=6))
def test_arrays_predict_what_the_definition_predicts(
    query: dict[int, float], documents: dict[str, dict[int, float]]
) -> None:
    by_hand = {name: score(query, document) for name, document in documents.items()}
    assert Oracle(documents).scores(query) == {name: found for name, found in by_hand.items() if found is not None}


def test_the_smallest_weight_of_the_service_is_the_smallest_that_lucene_takes() -> None:
    """FeatureField requires a normal float. test_node.py shows this on the engine."""
    assert float(np.finfo(np.float32).tiny) == SMALLEST_WEIGHT


EXPECTED = {"a": Score(3.0, 3.0, 3.0), "b": Score(2.0, 2.0, 2.0), "c": Score(2.0, 2.0, 2.0), "d": Score(1.0, 1.0, 1.0)}


@pytest.mark.parametrize(
    ("hits", "message"),
    [
        ([("a", 3.0)], "1 hits"),
        ([("a", 3.0), ("a", 3.0)], "twice"),
        ([("a", 3.0), ("x", 2.0)], "shares no piece"),
        ([("a", 3.0), ("b", 2.0000002)], "not in Score"),
        ([("b", 2.0), ("a", 3.0)], "order"),
        ([("b", 2.0), ("c", 2.0)], "left out"),
    ],
)
def test_check_can_fail(hits: list[tuple[str, float]], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(EXPECTED, hits, 2)


def test_check_lets_ties_stand_in_any_order() -> None:
    check(EXPECTED, [("a", 3.0), ("b", 2.0)], 2)
    check(EXPECTED, [("a", 3.0), ("c", 2.0)], 2)
    check(EXPECTED, [("a", 3.0), ("c", 2.0), ("b", 2.0), ("d", 1.0)], 10)
