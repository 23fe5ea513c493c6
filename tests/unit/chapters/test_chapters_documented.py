"""docs/chapters.md lists the repairs of an engine's proposals."""

import re
from pathlib import Path

from models.chapters.maker import MIN_CHAPTER_WORDS, REPAIR_SENTENCES
from models.chapters.titles import MAX_TITLE_CHARACTERS

PAGE = (Path(__file__).parents[3] / "docs" / "chapters.md").read_text()


def test_each_repair_is_listed_with_its_sentence() -> None:
    section = PAGE[PAGE.index("## How chapters are made") : PAGE.index("### Measuring engines")]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.M)) == REPAIR_SENTENCES


def test_sentences_say_the_limits() -> None:
    assert f" {MIN_CHAPTER_WORDS} words" in REPAIR_SENTENCES["chapters_too_short"]
    assert f" {MAX_TITLE_CHARACTERS} characters" in REPAIR_SENTENCES["titles_cut"]
