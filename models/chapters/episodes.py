"""Talks with chapters that people made, one a line: what engines learn from and are measured on.

    {"id": "e1", "title": "...", "description": "...",
     "utterances": [{"start": 6.0, "speaker": "Ann", "text": "..."}, ...],
     "chapters": [{"start_utterance": 0, "title": "..."}, ...]}

`start` in seconds and `speaker` may be null; `start_utterance` counts from 0.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.chapters.engine import Episode, Proposed
from models.training.json_lines import ReadReport, read_objects, text_of
from services.errors import InvalidInput
from services.talk.segments import UNKNOWN, Segments, milliseconds

# Words before the first named chapter that are none of their own: a date, a name, a line of music.
_GREETING = 50


@dataclass(frozen=True, slots=True)
class Chaptered:
    """An episode, and the chapters that people gave it: ascending, the first one at 0, each at a segment's start.

    The first has no title where the first named one begins later, as shows do that greet and thank before.
    """

    id: str
    episode: Episode
    chapters: tuple[Proposed, ...]

    @property
    def held_out(self) -> bool:
        """Never trained, tuned or chosen on: half of all episodes, by their ids, so that no later one moves another."""
        return hashlib.sha256(self.id.encode()).digest()[0] % 2 == 1


def read_episodes(path: Path, report: ReadReport | None = None) -> Iterator[Chaptered]:
    """The episodes of a file (.jsonl, also packed), as a stream; bad lines are counted in `report` and skipped.

    Raises ConfigurationError (`unreadable_file`), InvalidInput (`damaged_file`, and `no_episodes` when no line is one).
    """
    report = report or ReadReport(path.name)
    for number, record in read_objects(path, report):
        try:
            found = _episode(record)
        except InvalidInput as error:
            report.refuse(number, error)
        else:
            report.taken += 1
            yield found
    if not report.taken:
        first = report.examples[0] if report.examples else "it is empty"
        raise InvalidInput("no_episodes", f"{path} holds no episode with chapters: {first}.")


def _episode(record: Mapping[str, Any]) -> Chaptered:
    said = _objects(record, "utterances")
    texts: list[str] = []
    offsets, starts, speakers = array("i"), array("i"), array("h")
    names: dict[str, int] = {}
    at, last, places = 0, UNKNOWN, []
    for row in said:
        places.append(len(offsets))
        text = " ".join(text_of(row, "text", required=False).split())
        if not text:
            continue
        speaker, start = row.get("speaker"), row.get("start")
        known = isinstance(speaker, str) and bool(speaker)
        number = names.setdefault(str(speaker), len(names)) if known and len(names) < 2**15 - 1 else UNKNOWN
        if timed := isinstance(start, int | float) and not isinstance(start, bool):
            last = max(last, milliseconds(float(start or 0)))
        if texts:
            # speech goes on in a line while one speaks; without times an utterance is a paragraph
            texts[-1] += "\n" if not timed or number != speakers[-1] else " "
            at += 1
        offsets.append(at)
        starts.append(last if timed else UNKNOWN)
        speakers.append(number)
        texts.append(text)
        at += len(text)
    if not texts:
        raise InvalidInput("empty_transcript", "it has no words")
    segments = Segments(offsets, starts, array("i", [UNKNOWN]) * len(offsets), speakers, tuple(names))
    title, about = (text_of(record, name, required=False) for name in ("title", "description"))
    episode = Episode(title, about, "".join(texts), segments)
    chapters = _chapters(_objects(record, "chapters"), places, offsets)
    if len(episode.text[: chapters[0].start].split()) < _GREETING:
        chapters = [Proposed(0, chapters[0].title), *chapters[1:]]
    else:
        chapters = [Proposed(0), *chapters]
    return Chaptered(text_of(record, "id"), episode, tuple(chapters))


def _chapters(given: list[Mapping[str, Any]], places: list[int], offsets: array[int]) -> list[Proposed]:
    """In order; of several at one place the first."""
    found: dict[int, str] = {}
    for row in given:
        number = row.get("start_utterance")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(places):
            raise InvalidInput("bad_chapters", "a chapter has no `start_utterance`, or there is no such utterance")
        place = min(places[number], len(offsets) - 1)
        found.setdefault(place, " ".join(text_of(row, "title").split()))
    if not found:
        raise InvalidInput("bad_chapters", "it has no chapters")
    return [Proposed(offsets[place], title) for place, title in sorted(found.items())]


def _objects(record: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = record.get(name)
    if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
        raise InvalidInput("wrong_type", f"`{name}` is no list of objects")
    return value
