"""Collect the rows of the table from the fault tests. `python -m tests.faults.rows FILE` prints it as Markdown."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """The result of one fault.

    `without` and `with_it` count the same thing (`counted`), without and with the protection.
    """

    fault: str
    promise: str
    protection: str
    counted: str
    without: int
    with_it: int
    seconds: float = 0.0


def table(rows: Iterable[Row]) -> str:
    """Return the table as Markdown, one line a row, sorted by promise."""
    lines = [
        "| fault | promise | what is counted | without protection | with it | the protection |",
        "|---|---|---|--:|--:|---|",
    ]
    lines += [
        f"| {row.fault} | {row.promise} | {row.counted} | {row.without:,} | {row.with_it:,} | {row.protection} |"
        for row in sorted(rows, key=lambda row: (row.promise, row.fault))
    ]
    return "\n".join(lines)


def save(rows: Iterable[Row], path: Path) -> None:
    """Save the rows. Keep the rows of an earlier run, except those about the same fault."""
    kept = {row.fault: row for row in (load(path) if path.exists() else [])}
    kept |= {row.fault: row for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in kept.values()], indent=1) + "\n")


def load(path: Path) -> list[Row]:
    return [Row(**row) for row in json.loads(path.read_text())]


if __name__ == "__main__":
    print(table(load(Path(sys.argv[1]))))  # noqa: T201 (that is what it is for)
