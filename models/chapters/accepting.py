"""What is accepted of an engine's proposals: whatever it wrote, chapters in order that cover the talk, with titles of
their own that say something said there. What was mended is counted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

from models.chapters.engine import Episode, Proposed
from models.chapters.tiling.blocks import length
from models.chapters.titles.checking import Said, clean, says_something
from services.talk.chapters import Chapter, Repair

# Best first, for each stretch of the text: phrases that may be its title.
Titler = Callable[[Episode, Sequence[tuple[int, int]]], Sequence[Sequence[str]]]

MAX_CHAPTERS = 1000  # as many as a producer may send
# Words: what is shorter is a slip of a generator. Of 13,000 chapters that people made 1 in 50 has fewer.
LEAST_WORDS = 12
# Words before the first chapter that are none of their own: a greeting, a line of music.
_GREETING = 50

SENTENCES = {
    "chapters_out_of_text": "Proposed chapters that begin outside the text were left out.",
    "chapters_unordered": "Proposed chapters that begin before the one before them were sorted.",
    "chapters_snapped": "Proposed chapters that begin within a segment begin with the nearest one.",
    "chapters_at_one_place": "Of several chapters proposed at one segment the first with a title was kept.",
    "chapters_too_many": "Of more proposed chapters than a talk may have the shortest were joined to the one before.",
    "chapters_too_short": "Proposed chapters of less than 12 words were joined to a neighbour.",
    "first_chapter_moved": "The first proposed chapter begins with the talk.",
    "first_chapter_added": "What is said before the first proposed chapter became one.",
    "titles_cut": "Titles of more than 120 characters were cut.",
    "titles_empty": "Missing titles were made of the words of the chapter.",
    "titles_repeated": "Titles that another chapter has were replaced by words of the chapter.",
    "titles_invented": "Titles that say what neither the chapter nor the talk's own title and description say were "
    "replaced by words of the chapter.",
}


def accepted(episode: Episode, proposals: Sequence[Proposed], titler: Titler) -> tuple[list[Chapter], list[Repair]]:
    """Chapters that begin with segments, in order, from the first character to the last, with distinct titles.

    A talk without words has none. An engine that proposes no title at all leaves them to `titler`, which is no repair.
    """
    counts: Counter[str] = Counter()
    if not episode.text.strip() or not proposals:
        return [], []
    kept = _placed(episode, proposals, counts)
    kept = _first_at_0(episode, kept, counts)
    kept = _long_enough(episode, kept, counts)
    starts = [one.start for one in kept]
    bounds = list(zip(starts, [*starts[1:], len(episode.text)], strict=True))
    titles = _titles(episode, kept, bounds, titler, counts)
    if not any(one.title for one in proposals):
        counts.pop("titles_empty", None)
    chapters = _timed(episode, bounds, titles)
    return chapters, [Repair(code, SENTENCES[code], counts[code]) for code in SENTENCES if counts[code]]


def _placed(episode: Episode, proposals: Sequence[Proposed], counts: Counter[str]) -> list[Proposed]:
    """At starts of segments, in order, one at each."""
    inside = [one for one in proposals if 0 <= one.start < len(episode.text)]
    counts["chapters_out_of_text"] += len(proposals) - len(inside)
    counts["chapters_unordered"] += sum(b.start < a.start for a, b in itertools.pairwise(inside))
    kept: dict[int, Proposed] = {}
    for one in sorted(inside, key=lambda proposed: proposed.start):
        start = _snapped(episode, one.start)
        counts["chapters_snapped"] += start != one.start
        there = kept.get(start)
        counts["chapters_at_one_place"] += there is not None
        if there is None or (not clean(there.title) and clean(one.title)):
            kept[start] = Proposed(start, one.title)
    return list(kept.values())


def _snapped(episode: Episode, start: int) -> int:
    offsets = episode.segments.offsets
    if not offsets:
        return 0
    i = episode.segments.at(start)
    nearer = i + 1 < len(offsets) and offsets[i + 1] - start < start - offsets[i]
    return offsets[i + nearer]


def _first_at_0(episode: Episode, kept: list[Proposed], counts: Counter[str]) -> list[Proposed]:
    if not kept:
        counts["first_chapter_added"] += 1
        return [Proposed(0)]
    if kept[0].start == 0:
        return kept
    if length(episode.text, 0, kept[0].start) < _GREETING:
        counts["first_chapter_moved"] += 1
        return [Proposed(0, kept[0].title), *kept[1:]]
    counts["first_chapter_added"] += 1
    return [Proposed(0), *kept]


def _long_enough(episode: Episode, kept: list[Proposed], counts: Counter[str]) -> list[Proposed]:
    """A short chapter goes to the one before; a short first one takes in the next, and its title where it has none."""
    long: list[Proposed] = []
    ends = [*(one.start for one in kept[1:]), len(episode.text)]
    for one, end in zip(kept, ends, strict=True):
        if long and _words(episode, long[0].start, one.start) < LEAST_WORDS:
            long = [Proposed(long[0].start, long[0].title or one.title)]
        elif not long or _words(episode, one.start, end) >= LEAST_WORDS:
            long.append(one)
            continue
        counts["chapters_too_short"] += 1
    if (spare := len(long) - MAX_CHAPTERS) > 0:
        counts["chapters_too_many"] += spare
        sizes = [b.start - a.start for a, b in zip(long[1:], [*long[2:], Proposed(len(episode.text))], strict=True)]
        dropped = set(sorted(range(len(sizes)), key=lambda i: (sizes[i], i))[:spare])
        long = [long[0], *(one for i, one in enumerate(long[1:]) if i not in dropped)]
    return long


def _words(episode: Episode, start: int, end: int) -> int:
    return length(episode.text, start, end)


def _titles(
    episode: Episode, kept: Sequence[Proposed], bounds: Sequence[tuple[int, int]], titler: Titler, counts: Counter[str]
) -> list[str]:
    titles: list[str] = []
    taken: set[str] = set()
    for one, (start, end) in zip(kept, bounds, strict=True):
        title, cut = clean(one.title), len(one.title.split()) and clean(one.title) != clean(one.title, longest=None)
        if not says_something(title):
            counts["titles_empty"] += 1
            title = ""
        elif title.casefold() in taken:
            counts["titles_repeated"] += 1
            title = ""
        elif not Said(episode, start, end).holds(title):
            counts["titles_invented"] += 1
            title = ""
        else:
            counts["titles_cut"] += bool(cut)
            taken.add(title.casefold())
        titles.append(title)
    missing = [i for i, title in enumerate(titles) if not title]
    if missing:
        offers = titler(episode, bounds)
        for i in missing:
            titles[i] = _own(offers[i], i + 1, taken)
            taken.add(titles[i].casefold())
    return titles


def _own(offers: Sequence[str], number: int, taken: set[str]) -> str:
    """The first that no other chapter has; a number where there is none."""
    for offer in map(clean, offers):
        if offer and offer.casefold() not in taken:
            return offer
    title = f"Chapter {number}"
    while title.casefold() in taken:
        title += "′"
    return title


def _timed(episode: Episode, bounds: Sequence[tuple[int, int]], titles: Sequence[str]) -> list[Chapter]:
    segments = episode.segments
    begins = [segments.second_at(start) for start, _ in bounds]
    ends = [*begins[1:], segments.last_second(len(episode.text))]
    return [
        Chapter(title, start, end, begin, stop)
        for title, (start, end), begin, stop in zip(titles, bounds, begins, ends, strict=True)
    ]
