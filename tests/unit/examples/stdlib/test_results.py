"""Counts of answers, choice of examples, and progress of a job."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from examples.service import IngestProgress, follow_job
from examples.stdlib.results import (
    Question,
    QuestionRankings,
    TimedRanking,
    find_contrasts,
    measure_modes,
    results_as_json,
)
from services.errors import BackendUnavailable


def ranked(text: str, lexical: str, sparse: str, hybrid: str, milliseconds: float = 1.0) -> QuestionRankings:
    """Make a question with the answer "x"; each ranking is a word of one-letter ids."""
    rankings = {"lexical": lexical, "sparse": sparse, "hybrid": hybrid}
    return QuestionRankings(
        Question(text, ("x",)), {mode: TimedRanking(tuple(ids), milliseconds, 0.5) for mode, ids in rankings.items()}
    )


def test_results_count_the_first_and_the_first_five() -> None:
    rows = measure_modes(
        [
            ranked("a", lexical="xabcdef", sparse="abcdxef", hybrid="abcdefx", milliseconds=1),
            ranked("b", lexical="ax", sparse="", hybrid="x", milliseconds=3),
            ranked("c", lexical="abc", sparse="x", hybrid="bx", milliseconds=8),
        ]
    )
    assert [(row.mode, row.questions, row.first, row.within) for row in rows] == [
        ("lexical", 3, 1, 2),
        ("sparse", 3, 1, 2),
        ("hybrid", 3, 1, 2),
    ]
    assert {row.median_ms for row in rows} == {3.0}


def test_results_of_a_single_question_has_its_time() -> None:
    assert {(row.median_ms, row.p90_ms) for row in measure_modes([ranked("a", "x", "x", "x", 2.5)])} == {(2.5, 2.5)}


def test_contrasts_show_the_first_question_of_each_pattern_the_commonest_first() -> None:
    shown = find_contrasts(
        [
            ranked("only sparse", "a", "x", "a"),
            ranked("all", "x", "x", "x"),
            ranked("all again", "x", "x", "x"),
            ranked("none", "abcdex", "a", ""),
        ]
    )
    assert [(pattern, count, item.question.text) for pattern, count, item in shown] == [
        ((True, True, True), 2, "all"),
        ((False, True, False), 1, "only sparse"),
        ((False, False, False), 1, "none"),
    ]


def test_record_keeps_the_failures() -> None:
    value = results_as_json([ranked("a", "xa", "ax", "b")])
    assert value["ranks"] == [{"question": "a", "lexical": 1, "sparse": 2, "hybrid": None}]
    assert value["modes"]["hybrid"] == {"first": 0, "within_5": 0, "client_ms": {"p50": 1.0, "p90": 1.0}}


class Clock:
    """A clock that advances only when the program sleeps."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def job(encoded: int, accepted: int = 10, **states: int) -> dict[str, Any]:
    counts = {"encoded": encoded, "pending": accepted - encoded - sum(states.values())} | states
    return {"accepted": accepted, "states": counts, "finished": counts["pending"] == 0}


def run_follow(jobs: Iterator[Mapping[str, Any]], stall_seconds: float = 5.0) -> list[IngestProgress]:
    clock = Clock()
    steps = follow_job(
        lambda: next(jobs), 0.0, interval=1, stall_seconds=stall_seconds, now=clock.now, sleep=clock.sleep
    )
    return list(steps)


def test_follow_ends_when_the_job_is_finished() -> None:
    steps = run_follow(iter([job(0), job(4), job(10)]))
    assert steps == [IngestProgress(0, 10, 0), IngestProgress(4, 10, 1), IngestProgress(10, 10, 2)]
    assert [step.rate for step in steps] == [0, 4, 5]


def test_follow_stops_without_progress() -> None:
    with pytest.raises(BackendUnavailable) as raised:
        run_follow(job(3) for _ in range(100))
    assert raised.value.code == "encoding_stalled"
    assert "3 of 10" in raised.value.detail


def test_follow_is_patient_with_slow_progress() -> None:
    assert run_follow((job(second // 4) for second in range(100)), stall_seconds=5)[-1].encoded == 10


def test_follow_reports_dead_letters() -> None:
    with pytest.raises(BackendUnavailable) as raised:
        run_follow(iter([job(8), job(8, dead=2)]))
    assert raised.value.code == "documents_dead"
