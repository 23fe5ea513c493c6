"""The printed table matches its rows."""

from pathlib import Path

from tests.faults.rows import Row, load, save, table


def test_rows_of_several_runs_are_kept_and_the_newest_of_a_fault_counts(tmp_path: Path) -> None:
    path = tmp_path / "build" / "rows.json"
    one = Row("kill -9", "P1", "journal", "documents lost", 1200, 0)
    save([one, Row("full", "P1", "sweeper", "documents lost", 3, 1)], path)
    save([Row("full", "P1", "sweeper", "documents lost", 3, 0)], path)
    assert load(path)[0] == one
    assert table(load(path)).splitlines()[2:] == [
        "| full | P1 | documents lost | 3 | 0 | sweeper |",
        "| kill -9 | P1 | documents lost | 1,200 | 0 | journal |",
    ]
