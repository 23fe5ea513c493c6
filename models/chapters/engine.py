"""What every maker of chapters offers.

Talks with chapters that people made, one a line: what engines learn from and are measured on.

    {"id": "e1", "title": "...", "description": "...",
     "utterances": [{"start": 6.0, "speaker": "Ann", "text": "..."}, ...],
     "chapters": [{"start_utterance": 0, "title": "..."}, ...]}

`start` in seconds and `speaker` may be null; `start_utterance` counts from 0.
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


@dataclass(frozen=True, slots=True)
class Episode:
    """What an engine may look at: a talk's title, description and text, and where its segments begin."""

    title: str
    description: str
    text: str
    segments: Segments


@dataclass(frozen=True, slots=True)
class ProposedChapter:
    """A chapter as an engine would have it: it begins at the character `start` and goes on to the next one.

    An empty title asks for one from the words of the chapter.
    """

    start: int
    title: str = ""


class ChapterEngine(Protocol):
    """Proposals are never trusted: `models.chapters.maker` snaps, orders, deduplicates and titles them."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same episode would get other chapters."""
        ...

    def propose(self, episode: Episode, seconds: float | None = None) -> Sequence[ProposedChapter]:
        """Chapters in any order. Raises Overloaded (`chapters_late`) when `seconds` do not suffice.

        An episode without words has none.
        """
        ...


# Words before the first named chapter that are none of their own: a date, a name, a line of music.
_GREETING_WORDS = 50


@dataclass(frozen=True, slots=True)
class AnnotatedEpisode:
    """An episode, and the chapters that people gave it: ascending, the first one at 0, each at a segment's start.

    The first has no title where the first named one begins later, as shows do that greet and thank before.
    """

    id: str
    episode: Episode
    chapters: tuple[ProposedChapter, ...]

    @property
    def held_out(self) -> bool:
        """Never trained, tuned or chosen on: half of all episodes, by their ids, so that no later one moves another."""
        return hashlib.sha256(self.id.encode()).digest()[0] % 2 == 1


def read_episodes(path: Path, report: ReadReport | None = None) -> Iterator[AnnotatedEpisode]:
    """The episodes of a file (.jsonl, also packed), as a stream; bad lines are counted in `report` and skipped.

    Raises ConfigurationError (`unreadable_file`), InvalidInput (`damaged_file`, and `no_episodes` when no line is one).
    """
    report = report or ReadReport(path.name)
    for number, record in read_objects(path, report):
        try:
            found = _parse_episode(record)
        except InvalidInput as error:
            report.refuse(number, error)
        else:
            report.taken += 1
            yield found
    if not report.taken:
        first = report.examples[0] if report.examples else "it is empty"
        raise InvalidInput("no_episodes", f"{path} holds no episode with chapters: {first}.")


def _parse_episode(record: Mapping[str, Any]) -> AnnotatedEpisode:
    said = _read_object_list(record, "utterances")
    texts: list[str] = []
    offsets, starts, speakers = array("i"), array("i"), array("h")
    names: dict[str, int] = {}
    at, last, places = 0, UNKNOWN_TIME, []
    for row in said:
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
            # speech goes on in a line while one speaks; without times an utterance is a paragraph
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
    title, about = (read_text_member(record, name, required=False) for name in ("title", "description"))
    episode = Episode(title, about, "".join(texts), segments)
    chapters = _parse_chapters(_read_object_list(record, "chapters"), places, offsets)
    if len(episode.text[: chapters[0].start].split()) < _GREETING_WORDS:
        chapters = [ProposedChapter(0, chapters[0].title), *chapters[1:]]
    else:
        chapters = [ProposedChapter(0), *chapters]
    return AnnotatedEpisode(read_text_member(record, "id"), episode, tuple(chapters))


def _parse_chapters(given: list[Mapping[str, Any]], places: list[int], offsets: array[int]) -> list[ProposedChapter]:
    """In order; of several at one place the first."""
    found: dict[int, str] = {}
    for row in given:
        number = row.get("start_utterance")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(places):
            raise InvalidInput("bad_chapters", "a chapter has no `start_utterance`, or there is no such utterance")
        place = min(places[number], len(offsets) - 1)
        found.setdefault(place, " ".join(read_text_member(row, "title").split()))
    if not found:
        raise InvalidInput("bad_chapters", "it has no chapters")
    return [ProposedChapter(offsets[place], title) for place, title in sorted(found.items())]


def _read_object_list(record: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = record.get(name)
    if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
        raise InvalidInput("wrong_type", f"`{name}` is no list of objects")
    return value
