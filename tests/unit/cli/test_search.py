"""The output of `sparsewell search` for a hit in a talk."""

import io
from typing import Any

from rich.console import Console

from cli.search import print_hits

HIT: dict[str, Any] = {
    "id": "e1", "score": 0.9, "scores": {"sparse": 4.2}, "title": "At sea",
    "chapter": {"number": 2, "title": "Fog", "start": 9, "end": 80},
    "passage": {"text": "Fog is what we fear.", "start_time": 3725.4, "speaker": "Bob"},
    "link": "https://x.example/1.mp3#t=3725",
}  # fmt: skip


def printed(hit: dict[str, Any]) -> list[str]:
    text = io.StringIO()
    print_hits({"hits": [hit], "timings_ms": {"total": 1.0}}, Console(file=text, width=200, highlight=False))
    return [line.strip() for line in text.getvalue().splitlines()]


def test_chapter_time_speaker_and_link_are_one_line() -> None:
    assert "2. Fog  1:02:05  Bob  https://x.example/1.mp3#t=3725" in printed(HIT)


def test_unknown_parts_of_a_location_are_left_out() -> None:
    bare = {name: value for name, value in HIT.items() if name != "link"}
    assert "2. Fog" in printed(bare | {"passage": {"text": "Fog."}})
    other = {name: value for name, value in bare.items() if name != "chapter"} | {"passage": {"text": "Fog."}}
    assert printed(other)[1] == "Fog."
