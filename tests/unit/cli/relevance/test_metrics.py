"""Metrics against values computed by hand."""

import math
import subprocess
import sys

import pytest

from cli.relevance.metrics import MEASURES, measure_rankings, percentiles


def test_metrics_of_one_query_computed_by_hand() -> None:
    judgements = {"q": {"a": 2, "b": 1, "c": 0}}
    found = measure_rankings(judgements, {"q": [("x", 9.0), ("b", 8.0), ("a", 7.0)]}).by_query["q"]
    # trec_eval's NDCG: the grade itself is the gain
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert found["ndcg@10"] == pytest.approx((1 / math.log2(3) + 2 / math.log2(4)) / ideal)
    assert found["mrr@10"] == 0.5
    assert found["recall@100"] == 1.0


def test_the_order_counts_and_ties_are_ordered_as_by_trec_eval() -> None:
    judgements = {"q": {"a": 1}}
    assert measure_rankings(judgements, {"q": [("a", 0.0), ("z", 5.0)]}).mean["mrr@10"] == 1.0
    for tied in ([("a", 1.0), ("z", 1.0)], [("z", 1.0), ("a", 1.0)]):
        assert measure_rankings(judgements, {"q": tied}).mean["mrr@10"] == 0.5


def test_queries_without_an_answer_count_as_zero() -> None:
    judgements = {"q": {"a": 1}, "refused": {"a": 1}, "empty": {"a": 1}, "nothing to find": {"a": 0}}
    quality = measure_rankings(judgements, {"q": [("a", 1.0)], "empty": [], "not judged": [("a", 1.0)]})
    assert quality.mean == dict.fromkeys(MEASURES, 0.25)
    assert set(quality.by_query) == set(judgements)


def test_metrics_stop_at_their_depth() -> None:
    ranking = [(f"x{n}", float(-n)) for n in range(99)] + [("a", -99.0), ("b", -100.0)]
    found = measure_rankings({"q": {"a": 1, "b": 1}}, {"q": ranking}).mean
    assert found == {
        "ndcg@10": 0.0, "mrr@10": 0.0, "map": pytest.approx((1 / 100 + 2 / 101) / 2), "recall@100": 0.5,
        "recall@1000": 1.0,
    }  # fmt: skip


def test_percentiles_are_nearest_ranks() -> None:
    assert percentiles([float(n) for n in range(100, 0, -1)]) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert percentiles([7.0]) == {"p50": 7.0, "p90": 7.0, "p99": 7.0}
    assert percentiles([]) == {}


def test_without_the_extra_the_error_names_the_package() -> None:
    """The base installation has no ir_measures. It can read a collection; a measurement raises a clear error."""
    program = (
        "import sys; sys.modules['ir_measures'] = None\n"
        "import cli.relevance.evaluate, cli.relevance.live\n"
        "from cli.relevance.metrics import measure_rankings\n"
        "measure_rankings({'q': {'a': 1}}, {})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install -e '.[eval]'" in done.stderr
    assert "[missing_extra]" in done.stderr
