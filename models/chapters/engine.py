"""Chapter engines and their input: the interface, and talks with chapters that people made.

`ChapterEngine` proposes chapters of an `Episode`. `read_episodes` reads the talks for training and measuring, an object
a line (`docs/decisions/0194`); `start` (seconds) and `speaker` may be null, `start_utterance` counts from 0:

    {"id": "e1", "title": "...", "description": "...",
     "utterances": [{"start": 6.0, "speaker": "Ann", "text": "..."}, ...],
     "chapters": [{"start_utterance": 0, "title": "..."}, ...]}
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from models.training.storage import ReadReport, read_objects, read_text_member
from services.errors import InvalidInput
from services.talk.model import UNKNOWN_TIME, Segments, to_milliseconds

# Fewer words before the first named chapter belong to it: a date, a name, a line of music.
_GREETING_WORDS = 50


@dataclass(frozen=True, slots=True)
class Episode:
    """The input of an engine: a talk's title, description and text, and the starts of its segments."""

    title: str
    description: str
    text: str
    segments: Segments


@dataclass(frozen=True, slots=True)
class ProposedChapter:
    """A proposed chapter. It begins at the character `start` and ends where the next chapter begins.

    An empty title is replaced by words of the chapter.
    """

    start: int
    title: str = ""


class ChapterEngine(Protocol):
    """An engine that proposes chapters. `models.chapters.maker` checks, orders, deduplicates and titles them."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Return an id that changes whenever the same episode would get other chapters."""
        ...

    @property
    def trained_titles(self) -> bool:
        """Say whether the engine was trained on people's titles, so that words which nobody said may stay in one."""
        ...

    def propose(self, episode: Episode, seconds: float | None = None) -> Sequence[ProposedChapter]:
        """Propose chapters, in any order; none for an episode without words.

        Raises Overloaded (`chapters_late`) when `seconds` are not enough.
        """
        ...


@dataclass(frozen=True, slots=True)
class AnnotatedEpisode:
    """An episode and its chapters by people: ascending, each at the start of a segment, the first at 0.

    The first chapter has no title when the first named chapter begins later, for example after a greeting.
    """

    id: str
    episode: Episode
    chapters: tuple[ProposedChapter, ...]

    @property
    def held_out(self) -> bool:
        """Check whether the episode is in the test half, which training and tuning do not use.

        The id decides, so that a new episode never moves another one.
        """
        return hashlib.sha256(self.id.encode()).digest()[0] % 2 == 1


def read_episodes(path: Path, report: ReadReport | None = None) -> Iterator[AnnotatedEpisode]:
    """Yield the episodes of a .jsonl file, also compressed; bad lines are counted in `report` and skipped.

    Raises ConfigurationError (`unreadable_file`), InvalidInput (`damaged_file`; `no_episodes` when no line is valid).
    """
    report = report or ReadReport(path.name)
    for number, record in read_objects(path, report):
        try:
            episode = _parse_episode(record)
        except InvalidInput as error:
            report.refuse(number, error)
        else:
            report.taken += 1
            yield episode
    if not report.taken:
        first = report.examples[0] if report.examples else "it is empty"
        raise InvalidInput("no_episodes", f"{path} has no episode with chapters: {first}.")


def _parse_episode(record: Mapping[str, Any]) -> AnnotatedEpisode:
    utterances = _read_object_list(record, "utterances")
    texts: list[str] = []
    offsets, starts, speakers = array("i"), array("i"), array("h")
    names: dict[str, int] = {}
    at, last, places = 0, UNKNOWN_TIME, []
    for row in utterances:
        places.append(len(offsets))
        text = " ".join(read_text_member(row, "text", required=False).split())
        if not text:
            continue
        speaker, start = row.get("speaker"), row.get("start")
        known = isinstance(speaker, str) and bool(speaker)
        number = names.setdefault(str(speaker), len(names)) if known and len(names) < 2**15 - 1 else UNKNOWN_TIME
        if timed := isinstance(start, int | float) and not isinstance(start, bool):
            last = max(last, to_milliseconds(float(start or 0)))
        if texts:
            # A speaker's utterances share a line. Without times, an utterance is a paragraph.
            texts[-1] += "\n" if not timed or number != speakers[-1] else " "
            at += 1
        offsets.append(at)
        starts.append(last if timed else UNKNOWN_TIME)
        speakers.append(number)
        texts.append(text)
        at += len(text)
    if not texts:
        raise InvalidInput("empty_transcript", "it has no words")
    segments = Segments(offsets, starts, array("i", [UNKNOWN_TIME]) * len(offsets), speakers, tuple(names))
    title, description = (read_text_member(record, name, required=False) for name in ("title", "description"))
    episode = Episode(title, description, "".join(texts), segments)
    chapters = _parse_chapters(_read_object_list(record, "chapters"), places, offsets)
    if len(episode.text[: chapters[0].start].split()) < _GREETING_WORDS:
        chapters = [ProposedChapter(0, chapters[0].title), *chapters[1:]]
    else:
        chapters = [ProposedChapter(0), *chapters]
    return AnnotatedEpisode(read_text_member(record, "id"), episode, tuple(chapters))


def _parse_chapters(rows: list[Mapping[str, Any]], places: list[int], offsets: array[int]) -> list[ProposedChapter]:
    """Return the chapters in order. If several begin at a segment, the first is kept."""
    titles: dict[int, str] = {}
    for row in rows:
        number = row.get("start_utterance")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(places):
            raise InvalidInput("bad_chapters", "a chapter has no `start_utterance`, or there is no such utterance")
        place = min(places[number], len(offsets) - 1)
        titles.setdefault(place, " ".join(read_text_member(row, "title").split()))
    if not titles:
        raise InvalidInput("bad_chapters", "it has no chapters")
    return [ProposedChapter(offsets[place], title) for place, title in sorted(titles.items())]


def _read_object_list(record: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = record.get(name)
    if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
        raise InvalidInput("wrong_type", f"`{name}` is not a list of objects")
    return value
