"""docs/talk.md lists the repairs and the limits of transcripts."""

import re
from pathlib import Path

from services.talk.chapters import MAX_CHAPTERS
from services.talk.normalise import MAX_SEGMENTS, MAX_SPEAKERS, REPAIR_DETAILS
from services.talk.parse import TRANSCRIPT_TYPES

PAGE = (Path(__file__).parents[4] / "docs" / "talk.md").read_text()


def test_each_repair_is_listed_with_its_description() -> None:
    table = PAGE[PAGE.index("## Repairs") : PAGE.index("## Search")]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.M)) == REPAIR_DETAILS


def test_limits_and_types_are_listed() -> None:
    words = " ".join(PAGE.split())
    assert f"{MAX_SEGMENTS:,} segments, {MAX_SPEAKERS:,} speakers, {MAX_CHAPTERS:,} chapters" in words
    assert all(f"`{kind}`" in PAGE for kind in TRANSCRIPT_TYPES)
