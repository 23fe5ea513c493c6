"""What every maker of chapters offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.talk.segments import Segments


@dataclass(frozen=True, slots=True)
class Episode:
    """What an engine may look at: a talk's title, description and text, and where its segments begin."""

    title: str
    description: str
    text: str
    segments: Segments


@dataclass(frozen=True, slots=True)
class Proposed:
    """A chapter as an engine would have it: it begins at the character `start` and goes on to the next one.

    An empty title asks for one from the words of the chapter.
    """

    start: int
    title: str = ""


class ChapterEngine(Protocol):
    """Proposals are never trusted: `models.chapters.accepting` snaps, orders, deduplicates and titles them."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same episode would get other chapters."""
        ...

    def propose(self, episode: Episode, seconds: float | None = None) -> Sequence[Proposed]:
        """Chapters in any order. Raises Overloaded (`chapters_late`) when `seconds` do not suffice.

        An episode without words has none.
        """
        ...
