"""Measurement of throughput: layouts, cores, and figures of the rounds."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.export import throughput
from models.export.throughput import ThroughputRound, ThroughputSetting, build_report, list_settings, run_process


def test_each_layout_once_for_each_number_of_cores() -> None:
    assert [(s.cores, s.processes, s.threads, s.spinning) for s in list_settings([1, 2], [1024])] == [
        (1, 1, 1, False), (1, 2, 1, False),
        (2, 1, 1, False), (2, 1, 2, False), (2, 1, 2, True), (2, 2, 1, False), (2, 4, 1, False),
    ]  # fmt: skip
    assert {s.batch_pieces for s in list_settings([1], [256, 512])} == {256, 512}


def test_the_report_has_best_wall_times_and_median_cpu_times() -> None:
    one = ThroughputSetting(1, 1, 1, 1024)
    measured = {
        ("first", one): [ThroughputRound(10.0, 20.0), ThroughputRound(30.0, 10.0), ThroughputRound(20.0, 15.0)],
        ("second", one): [ThroughputRound(5.0, 10.0), ThroughputRound(6.0, 10.0), ThroughputRound(7.0, 5.0)],
    }
    first, second = build_report(measured, "first")
    assert (first["documents_a_second"], first["documents_a_processor_second"], first["times_first"]) == (30.0, 15.0, 1)
    assert (second["documents_a_second"], second["times_first"]) == (7.0, 0.5)
    assert second["rounds"] == [5.0, 6.0, 7.0]


def test_a_process_stays_on_the_cores_of_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gate:
        def wait(self) -> None:
            pass

    before, seen, told = os.sched_getaffinity(0), [], []

    class Results:
        def put(self, found: Any) -> None:
            told.append(found)

    def run(batch: np.ndarray) -> None:
        seen.append((os.sched_getaffinity(0), batch.shape))

    monkeypatch.setattr(throughput, "make_runner", lambda directory, threads, *, spinning: run)
    try:
        run_process(Path(), ThroughputSetting(1, 1, 1, 512), 128, 0.01, Gate(), Results())
    finally:
        os.sched_setaffinity(0, before)
    assert {len(cores) for cores, _ in seen} == {1}
    assert {shape for _, shape in seen} == {(4, 128)}
    ((documents, clock, computed),) = told
    assert documents == 4 * (len(seen) - 1), "the first batch warms up"
    assert clock >= 0.01
    assert 0 <= computed <= clock * 2
