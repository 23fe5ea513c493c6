"""The code map names paths and names that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROWS = [
    line for line in (ROOT / "docs" / "code-map.md").read_text().splitlines() if line.startswith("| ") and "`" in line
]


def find_missing(row: str) -> list[str]:
    """Return the paths of a row that do not exist, and the names that none of its files has as a whole word."""
    quoted = re.findall(r"`([^`]+)`", row)
    paths = [name for name in quoted if "/" in name]
    source = "\n".join((ROOT / path).read_text() for path in paths if (ROOT / path).is_file())
    absent = [path for path in paths if not (ROOT / path).exists()]
    return absent + [
        name for name in quoted if "/" not in name and not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", source)
    ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_each_row_names_code_that_exists(row: str) -> None:
    assert re.search(r"`[^`]+/[^`]*`", row), "a row names a path"
    assert find_missing(row) == []


def test_the_check_notices_a_missing_path_and_a_missing_name() -> None:
    row = "| A question | `services/no_such_module.py`; `Filter`, `satisfies_fil` in `services/filters/tree.py` |"
    assert find_missing(row) == ["services/no_such_module.py", "satisfies_fil"]


def test_the_map_has_its_rows() -> None:
    assert len(ROWS) > 40
