"""Several ways to make chapters, measured on the same episodes."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from cli.segmentation.baselines import Division
from cli.segmentation.measures import Likeness, Titles, likeness, paired, rouge_l
from models.chapters.accepting import accepted
from models.chapters.engine import Episode, Proposed
from models.chapters.episodes import Chaptered
from models.chapters.titles.phrases import phrase_titles
from services.errors import Overloaded
from services.talk.chapters import Chapter, Repair

Made = tuple[Sequence[Chapter], Sequence[Repair]]
Way = Callable[[Chaptered], Made]
# Of episodes that have no times: people speak about as fast.
_WORDS_A_MINUTE = 150


@dataclass(slots=True)
class Tally:
    """What one way made of every episode."""

    divisions: list[Likeness] = field(default_factory=list)
    titles: list[tuple[str, str]] = field(default_factory=list)
    repairs: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    hours: float = 0.0
    late: int = 0
    too_short: int = 0

    def figures(self, compared: Titles | None) -> dict[str, Any]:
        """Means over episodes and over titles. `chapters_per_human` is a geometric mean."""
        found: dict[str, Any] = {"episodes": len(self.divisions)}
        if self.divisions:
            found["pk"] = round(fmean(one.pk for one in self.divisions), 4)
            found["window_diff"] = round(fmean(one.window_diff for one in self.divisions), 4)
            found["boundary_similarity"] = round(fmean(one.boundary_similarity for one in self.divisions), 4)
            found["chapters_per_human"] = round(math.exp(fmean(math.log(one.share) for one in self.divisions)), 2)
        if self.titles:
            found["titles"] = len(self.titles)
            found["title_rouge_l"] = round(fmean(rouge_l(human, made) for human, made in self.titles), 4)
            if compared is not None:
                found["title_similarity"] = round(fmean(compared.likeness(*pair) for pair in self.titles), 4)
        if self.hours:
            found["seconds_an_hour"] = round(self.seconds / self.hours, 2)
        counted = {"repairs": dict(sorted(self.repairs.items())), "late": self.late, "too_short": self.too_short}
        return found | {name: value for name, value in counted.items() if value}


def compare(
    ways: Mapping[str, Way], episodes: Iterable[Chaptered], done: Callable[[], None] = lambda: None
) -> dict[str, Tally]:
    """Every way on every episode. One that an engine is late with counts as a single chapter."""
    tallies = {name: Tally() for name in ways}
    for one in episodes:
        for name, way in ways.items():
            _measure(tallies[name], one, way)
        done()
    return tallies


def divided(division: Division) -> Way:
    """Chapters that begin with the segments that `division` gives, titled as the engine tiling titles its own."""

    def way(one: Chaptered) -> Made:
        offsets = one.episode.segments.offsets
        return accepted(one.episode, [Proposed(offsets[i]) for i in (0, *division(one.episode))], phrase_titles)

    return way


def titled(titler: Callable[[Episode, Sequence[int]], Sequence[Proposed]]) -> Way:
    """The chapters that people made, with titles by an engine: how good those are, whatever the boundaries."""

    def way(one: Chaptered) -> Made:
        return accepted(one.episode, titler(one.episode, [chapter.start for chapter in one.chapters]), phrase_titles)

    return way


def given(one: Chaptered) -> Made:
    """The chapters that people made: what every measure says of no error."""
    return [Chapter(title, start, end) for start, end, title in stretches(one)], []


def stretches(one: Chaptered) -> list[tuple[int, int, str]]:
    """Characters and title of each chapter that people made."""
    starts = [chapter.start for chapter in one.chapters]
    ends = [*starts[1:], len(one.episode.text)]
    return [(chapter.start, end, chapter.title) for chapter, end in zip(one.chapters, ends, strict=True)]


def hours(episode: Episode) -> float:
    """How long a talk is, by its last time or by its words."""
    last = episode.segments.last_second(len(episode.text)) or episode.segments.second_at(len(episode.text))
    return last / 3600 if last else len(episode.text.split()) / _WORDS_A_MINUTE / 60


def _measure(tally: Tally, one: Chaptered, way: Way) -> None:
    begun = time.perf_counter()
    try:
        chapters, repairs = way(one)
    except Overloaded:
        tally.late += 1
        chapters, repairs = [], []
    tally.seconds += time.perf_counter() - begun
    tally.hours += hours(one.episode)
    tally.repairs.update({repair.code: repair.count for repair in repairs})
    at = one.episode.segments.at
    found = likeness(
        [at(chapter.start) for chapter in one.chapters], [at(chapter.start) for chapter in chapters],
        len(one.episode.segments),
    )  # fmt: skip
    if found is None:
        tally.too_short += 1
    else:
        tally.divisions.append(found)
    tally.titles += paired(stretches(one), chapters)
