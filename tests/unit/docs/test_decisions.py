"""Compare the index of the decisions with their files: each has one row, with the same title, date and status."""

import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[3] / "docs" / "decisions"
_ROW = re.compile(r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+) \| (\d{4}-\d\d-\d\d) \| (.+) \|$", re.MULTILINE)
_HEAD = re.compile(r"# (\d{4}): (.+)\n\nStatus: (.+)\. Date: (\d{4}-\d\d-\d\d)\.\n\n")
_LINK = re.compile(r"\[(\d{4})\]\(([^)]+)\)")
_STATUS = re.compile(r"accepted|(?:accepted, amended|superseded) by \[\d{4}\]\([^)]+\)(?:, \[\d{4}\]\([^)]+\))*")


class Decision(NamedTuple):
    """A decision as a row of the index, or the first lines of a file, states it."""

    number: str
    file: str
    title: str
    date: str
    status: str


def indexed() -> list[Decision]:
    return [Decision(*row) for row in _ROW.findall((FOLDER / "README.md").read_text())]


def recorded() -> list[Decision]:
    found = []
    for file in sorted(FOLDER.glob("[0-9]*.md")):
        head = _HEAD.match(file.read_text())
        assert head, f"{file.name} must begin with '# NNNN: Title', an empty line and 'Status: … . Date: YYYY-MM-DD.'"
        number, title, status, date = head.groups()
        found.append(Decision(number, file.name, title, date, status))
    return found


def test_each_decision_is_in_the_index_once() -> None:
    assert sorted(indexed()) == recorded()


def test_numbers_are_those_of_the_file_names_and_unique() -> None:
    numbers = [one.number for one in recorded()]
    assert numbers == [one.file[:4] for one in recorded()]
    assert len(set(numbers)) == len(numbers)


def test_a_status_names_decisions_that_exist() -> None:
    files = {one.number: one.file for one in recorded()}
    for one in recorded():
        assert _STATUS.fullmatch(one.status), one
        assert all(files[number] == file for number, file in _LINK.findall(one.status)), one
