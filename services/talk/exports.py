"""Chapters in the forms that players read: Podcasting 2.0, WebVTT, lines for a description on YouTube."""

import html
from collections.abc import Sequence
from typing import Any

from services.errors import InvalidInput
from services.talk.chapters import Chapter

PODCASTING, VTT, PLAIN = "application/json+chapters", "text/vtt", "text/plain"
# What YouTube asks of a list of chapters (support.google.com, Video chapters): below that it shows none.
_FEWEST, _SHORTEST = 3, 10
# What a description there may not hold.
_BRACKETS = str.maketrans("<>", "‹›")


def podcasting(chapters: Sequence[Chapter], title: str, url: str) -> dict[str, Any]:
    """Podcasting 2.0 chapters JSON. Raises InvalidInput (`chapters_untimed`)."""
    whole: dict[str, Any] = {"version": "1.2.0"}
    if title:
        whole["title"] = title
    if url:
        whole["fileName"] = url
    listed = []
    for chapter, start in _timed(chapters):
        one: dict[str, Any] = {"startTime": start, "title": chapter.title}
        if chapter.end_time is not None and chapter.end_time > start:
            one["endTime"] = chapter.end_time
        listed.append(one)
    return whole | {"chapters": listed}


def webvtt(chapters: Sequence[Chapter]) -> str:
    """A WebVTT track of chapters. A cue needs an end: of a last chapter without one it is a second after its start.

    Raises InvalidInput (`chapters_untimed`).
    """
    cues = ["WEBVTT\n"]
    for number, (chapter, start) in enumerate(_timed(chapters), 1):
        end = chapter.end_time if chapter.end_time is not None and chapter.end_time > start else start + 1
        cues.append(f"{number}\n{_clock(start)} --> {_clock(end)}\n{html.escape(chapter.title, quote=False)}\n")
    return "\n".join(cues)


def youtube(chapters: Sequence[Chapter]) -> str:
    """Lines for the description of a video: the first one at 0:00, in which what is said before counts to it.

    Raises InvalidInput (`chapters_untimed`, `not_for_youtube`).
    """
    timed = _timed(chapters)
    starts = [0.0, *(start for _, start in timed[1:])]
    ends = [*starts[1:], timed[-1][0].end_time]
    short = next((i for i, end in enumerate(ends) if end is not None and int(end) - int(starts[i]) < _SHORTEST), None)
    if len(timed) < _FEWEST or short is not None:
        why = (
            f"there are {len(timed)}"
            if short is None
            else f"{chapters[short].title[:100]!r} at {_short_clock(starts[short])} is shorter"
        )
        raise InvalidInput(
            "not_for_youtube", f"YouTube shows chapters from three on, of ten seconds or more each; {why}."
        )
    lines = [
        f"{_short_clock(start)} {chapter.title.translate(_BRACKETS)}"
        for (chapter, _), start in zip(timed, starts, strict=True)
    ]
    return "\n".join(lines) + "\n"


def _timed(chapters: Sequence[Chapter]) -> list[tuple[Chapter, float]]:
    """The chapters with their starts in seconds."""
    timed = [(chapter, chapter.start_time) for chapter in chapters if chapter.start_time is not None]
    if len(timed) < len(chapters):
        raise InvalidInput(
            "chapters_untimed", "The transcript has no times, so its chapters have none: send it with segments that do."
        )
    return timed


def _clock(seconds: float) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def _short_clock(seconds: float) -> str:
    whole = int(seconds)
    minutes = f"{whole // 60 % 60}:{whole % 60:02d}"
    return minutes if whole < 3600 else f"{whole // 3600}:{minutes:0>5}"
