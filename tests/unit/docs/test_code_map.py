"""The code map names paths and names that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROWS = [
    line for line in (ROOT / "docs" / "code-map.md").read_text().splitlines() if line.startswith("| ") and "`" in line
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_each_row_names_code_that_exists(row: str) -> None:
    names = re.findall(r"`([^`]+)`", row)
    paths = [ROOT / name for name in names if "/" in name]
    assert paths
    assert [str(path) for path in paths if not path.exists()] == []
    source = "\n".join(path.read_text() for path in paths if path.is_file())
    assert [name for name in names if "/" not in name and name not in source] == []


def test_the_check_would_notice_a_missing_path() -> None:
    assert not (ROOT / "services" / "no_such_module.py").exists()
    assert len(ROWS) > 40
