"""Boundaries and titles written together, part by part, each with the global context (arXiv 2410.16148)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from models.chapters.engine import Episode, Proposed
from models.chapters.podtile.lines import Line, line_at, lines_of
from models.chapters.podtile.parts import next_part
from models.chapters.podtile.prompt import TAIL, begun, head, numbered, read_answer
from services.errors import Overloaded

LEAST = 64  # pieces of transcript, whatever title and description take


class Generator(Protocol):
    """A model that continues text."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def part_pieces(self) -> int:
        """What it reads and writes at once, all together."""
        ...

    @property
    def answer_pieces(self) -> int:
        """What it may write."""
        ...

    @property
    def title_pieces(self) -> int:
        """`part_pieces` where the title of one chapter is asked: its beginning says what it is about."""
        ...

    def pieces(self, texts: Sequence[str]) -> list[int]:
        """How many pieces each text has."""
        ...

    def write(self, prompt: str, begun: str = "", seconds: float | None = None) -> str:
        """The likeliest answer to a prompt that begins with `begun`, which is a part of what is returned.

        It is cut off after `answer_pieces`, and after `seconds`.
        """
        ...


class Podtile:
    """The engine `podtile`. With `boundaries`, chapters begin where that engine says and the generator only writes
    their titles; `ahead` is the share of a part that is read again at the beginning of the next one."""

    name = "podtile"

    def __init__(self, generator: Generator, *, boundaries: Boundaries | None = None, ahead: float = 0.125) -> None:
        self._generator, self._boundaries, self._ahead = generator, boundaries, ahead

    @property
    def fingerprint(self) -> str:
        own = f"{self._generator.fingerprint}-{self._ahead:g}"
        return own if self._boundaries is None else f"{own}-{self._boundaries.fingerprint}"

    def propose(self, episode: Episode, seconds: float | None = None) -> list[Proposed]:
        """See `ChapterEngine`. A title that could not be read is empty."""
        clock = Clock(seconds)
        lines = lines_of(episode)
        if not lines:
            return []
        if self._boundaries is None:
            return self._together(episode, lines, clock)
        starts = sorted({0, *(one.start for one in self._boundaries.propose(episode, clock.left()))})
        return self.titled(episode, starts, clock.left())

    def titled(self, episode: Episode, starts: Sequence[int], seconds: float | None = None) -> list[Proposed]:
        """A title for each chapter that begins at one of `starts`, ascending characters of the text."""
        clock = Clock(seconds)
        lines = lines_of(episode)
        counts = self._counts(episode, lines)
        firsts = [line_at(lines, start) for start in starts]
        written: list[Proposed] = []
        for i, (start, first) in enumerate(zip(starts, firsts, strict=True)):
            end = max(first + 1, firsts[i + 1] if i + 1 < len(starts) else len(lines))
            context = head(episode.title, episode.description, [one.title for one in written if one.title])
            part = next_part(counts[:end], first, self._room(context, self._generator.title_pieces), 0)
            answer = self._write(context, episode, lines[first : part.end], clock, begun())
            titles = read_answer(answer, 1)
            written.append(Proposed(start, titles[0][1] if titles else ""))
        return written

    def _together(self, episode: Episode, lines: Sequence[Line], clock: Clock) -> list[Proposed]:
        counts = self._counts(episode, lines)
        found: list[Proposed] = []
        taken: set[str] = set()
        first = 0
        while first < len(lines):
            context = head(episode.title, episode.description, [one.title for one in found if one.title])
            part = next_part(counts, first, self._room(context, self._generator.part_pieces), self._ahead)
            shown = lines[first : part.end]
            # the first part begins with a chapter, which need not be asked
            answer = self._write(context, episode, shown, clock, "" if first else begun())
            for number, title in read_answer(answer, part.settled - first):
                # A generator that was trained little writes a chapter's title again where the chapter goes on.
                if not title or title.casefold() not in taken:
                    found.append(Proposed(shown[number - 1].start, title))
                    taken.add(title.casefold())
            first = part.settled
        return found

    def _write(self, context: str, episode: Episode, lines: Sequence[Line], clock: Clock, beginning: str) -> str:
        shown = [numbered(i, episode.text[line.start : line.end]) for i, line in enumerate(lines, 1)]
        if len(shown) == 1:
            shown = [_fitting(shown[0], self._generator, self._room(context, self._generator.part_pieces))]
        answer = self._generator.write("".join([context, *shown, TAIL]), beginning, clock.left())
        clock.left()
        return answer

    def _counts(self, episode: Episode, lines: Sequence[Line]) -> list[int]:
        # with the longest number that a part can hold
        return self._generator.pieces([numbered(999, episode.text[line.start : line.end]) for line in lines])

    def _room(self, context: str, pieces: int) -> int:
        used = sum(self._generator.pieces([context, TAIL])) + self._generator.answer_pieces
        return max(LEAST, pieces - used)


class Boundaries(Protocol):
    """An engine whose boundaries are taken."""

    @property
    def fingerprint(self) -> str: ...

    def propose(self, episode: Episode, seconds: float | None = None) -> Sequence[Proposed]: ...


class Clock:
    """The seconds that are left of an engine's time; None: any number."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Raises Overloaded (`chapters_late`) when there are none."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise Overloaded("chapters_late", "The chapters of this talk were not ready in time.")
        return left


def _fitting(line: str, generator: Generator, room: int) -> str:
    """A line that alone is more than a part holds, as in scripts that a vocabulary spells out, is shown cut."""
    (count,) = generator.pieces([line])
    while count > room:
        line = line[: max(1, len(line) * room // count)]
        (count,) = generator.pieces([line])
    return line
