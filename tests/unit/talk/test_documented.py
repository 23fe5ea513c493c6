"""docs/talk.md lists the repairs and the limits of transcripts."""

import re
from pathlib import Path

from services.talk.given_chapters import MAX_CHAPTERS
from services.talk.reading import TYPES
from services.talk.repairs import SENTENCES
from services.talk.row import MAX_SEGMENTS, MAX_SPEAKERS

PAGE = (Path(__file__).parents[3] / "docs" / "talk.md").read_text()


def test_each_repair_is_listed_with_its_sentence() -> None:
    table = PAGE[PAGE.index("## Repairs") : PAGE.index("## Search")]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.M)) == SENTENCES


def test_limits_and_types_are_said() -> None:
    words = " ".join(PAGE.split())
    assert f"{MAX_SEGMENTS:,} segments, {MAX_SPEAKERS:,} speakers, {MAX_CHAPTERS:,} chapters" in words
    assert all(f"`{kind}`" in PAGE for kind in TYPES)
