"""The table of faults in docs/guarantees.md equals the measured table."""

from pathlib import Path

from tests.faults.rows import load, table

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_of_faults_is_the_committed_result() -> None:
    rows = load(ROOT / "benchmarks" / "results" / "faults.json")
    assert table(rows) in (ROOT / "docs" / "guarantees.md").read_text()
    assert all(row.with_it == 0 and row.without > 0 for row in rows)
