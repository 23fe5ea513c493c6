"""docs/chapters.md lists the repairs of an engine's proposals."""

import re
from pathlib import Path

from models.chapters.accepting import LEAST_WORDS, SENTENCES
from models.chapters.titles.checking import LONGEST

PAGE = (Path(__file__).parents[3] / "docs" / "chapters.md").read_text()


def test_each_repair_is_listed_with_its_sentence() -> None:
    section = PAGE[PAGE.index("## How chapters are made") : PAGE.index("### Measuring engines")]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.M)) == SENTENCES


def test_sentences_say_the_limits() -> None:
    assert f" {LEAST_WORDS} words" in SENTENCES["chapters_too_short"]
    assert f" {LONGEST} characters" in SENTENCES["titles_cut"]
