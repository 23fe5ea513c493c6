"""What a generator reads and what it is trained to write. Another wording is another `FORMAT`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

FORMAT = 1
NONE = "none"
_TITLE, _DESCRIPTION, _SO_FAR = 120, 400, 480  # characters
_SPACES = re.compile(r"\s+")
# `[12] Title`; or a line that begins `12: Title`, as models write that were trained on other lists.
_ANCHOR = re.compile(r"\[(\d{1,6})\](?:\s*:)?|^\s*(\d{1,6})[:.)]\s", re.MULTILINE)


def head(title: str, description: str, so_far: Sequence[str]) -> str:
    """The global context: title and description of the talk, and the latest titles of its chapters."""
    lines = [f"Title: {clean(title)[:_TITLE]}"]
    if about := clean(description)[:_DESCRIPTION]:
        lines.append(f"About: {about}")
    if titles := _latest(so_far):
        lines.append(f"Chapters so far: {'; '.join(titles)}")
    return "\n".join(lines) + "\nTranscript:"


def numbered(number: int, text: str) -> str:
    """A line of the transcript as it is shown."""
    return f"\n[{number}] {clean(text)}"


TAIL = "\nChapters:"


def answer(chapters: Iterable[tuple[int, str]]) -> str:
    """What is to be written: numbers of lines and the titles of the chapters that begin there."""
    written = " ".join(f"[{number}] {clean(title)}" for number, title in chapters)
    return f" {written or NONE}"


def begun(number: int = 1) -> str:
    """The beginning of an answer whose first chapter begins at a line that is known."""
    return f" [{number}]"


def read_answer(text: str, lines: int) -> list[tuple[int, str]]:
    """The numbers (from 1) and titles of an answer, ascending, each number once, none beyond `lines`.

    Whatever else a generator wrote is passed over.
    """
    anchors = list(_ANCHOR.finditer(text))
    found: dict[int, str] = {}
    for i, anchor in enumerate(anchors):
        number = int(anchor[1] or anchor[2])
        end = anchors[i + 1].start() if i + 1 < len(anchors) else len(text)
        title = text[anchor.end() : end].strip().partition("\n")[0]
        if 1 <= number <= lines and number not in found:
            found[number] = clean(title)
    return sorted(found.items())


def clean(text: str) -> str:
    """On one line, and without what marks a number."""
    return _SPACES.sub(" ", text.replace("[", "(").replace("]", ")")).strip()


def _latest(titles: Sequence[str]) -> list[str]:
    kept: list[str] = []
    room = _SO_FAR
    for title in reversed(titles):
        shown = clean(title)[:_TITLE]
        room -= len(shown) + 2
        if room < 0:
            break
        kept.append(shown)
    return kept[::-1]
