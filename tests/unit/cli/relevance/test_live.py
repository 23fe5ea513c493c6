"""Warnings of an evaluation, without a service."""

from pathlib import Path

from cli.relevance.live import (
    IngestedCollection,
    LoadOutcome,
    ModeAnswers,
    ModeResult,
    find_warnings,
)
from cli.relevance.metrics import measure_rankings
from models.judged_collection import JudgedCollection


def test_every_fact_that_limits_a_figure_is_a_warning() -> None:
    judgements = {"1": {"a": 1, "gone": 1}, "2": {"a": 1}, "untold": {"a": 1}}
    collection = JudgedCollection("c", Path("corpus.jsonl"), {"1": "first", "2": "second"}, judgements)
    rejected = [{"position": 1, "id": "x", "code": "bad_id", "reason": "because"}]
    states = {"pending": 0, "encoded": 1, "dead": 2, "deleted": 0}
    ingested = IngestedCollection(LoadOutcome(3, rejected, 1.0), states, {"a", "x"}, ["empty"], 1.0)
    answers = ModeAnswers(rankings={"1": [("a", 1.0)]}, refused={"2": "query_too_long"})
    result = ModeResult(answers, measure_rankings(collection.known_judgements(), answers.rankings))
    assert result.quality.mean["mrr@10"] == 0.5
    said = " ".join(find_warnings(collection, ingested, {"sparse": result}, 50))
    for part in (
        "1 judged queries have no text and were not asked (untold)",
        "1 judgements name documents that are not in the corpus (gone)",
        "1 documents have neither title nor text",
        "1 documents were rejected (bad_id)",
        "2 documents could not be encoded",
        "1 queries were refused in mode sparse (query_too_long); they count as zero",
        "Recall@100, Recall@1000 and MAP count only 50 hits",
    ):
        assert part in said
    clean = IngestedCollection(LoadOutcome(1), states | {"dead": 0}, {"a", "gone"}, [], 1.0)
    whole = JudgedCollection("c", Path("corpus.jsonl"), {"1": "first"}, {"1": judgements["1"]})
    assert find_warnings(whole, clean, {"sparse": ModeResult(ModeAnswers(), result.quality)}, 1000) == []
