"""What is accepted of an engine's proposals: whatever it wrote, chapters in order that cover the talk, with titles of
their own that say something said there. What was mended is counted.

Opens what makes the chapters of talk: an engine by its name, with what it proposes checked and titled.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

from models.chapters.engine import ChapterEngine, Episode, ProposedChapter
from models.chapters.texttiling import TextTilingEngine, count_words
from models.chapters.titles import TitleVocabulary, clean_title, has_letter_or_digit, phrase_titles
from models.encoder import Encoder
from services.errors import ConfigurationError
from services.talk.model import Chapter, Repair

# Best first, for each stretch of the text: phrases that may be its title.
Titler = Callable[[Episode, Sequence[tuple[int, int]]], Sequence[Sequence[str]]]

MAX_CHAPTERS = 1000  # as many as a producer may send
# Words: what is shorter is a slip of a generator. Of 13,000 chapters that people made 1 in 50 has fewer.
MIN_CHAPTER_WORDS = 12
# Words before the first chapter that are none of their own: a greeting, a line of music.
_GREETING_WORDS = 50

REPAIR_SENTENCES = {
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


def accept_proposals(
    episode: Episode, proposals: Sequence[ProposedChapter], titler: Titler
) -> tuple[list[Chapter], list[Repair]]:
    """Chapters that begin with segments, in order, from the first character to the last, with distinct titles.

    A talk without words has none. An engine that proposes no title at all leaves them to `titler`, which is no repair.
    """
    counts: Counter[str] = Counter()
    if not episode.text.strip() or not proposals:
        return [], []
    kept = _place_proposals(episode, proposals, counts)
    kept = _start_at_zero(episode, kept, counts)
    kept = _merge_short_chapters(episode, kept, counts)
    starts = [one.start for one in kept]
    bounds = list(zip(starts, [*starts[1:], len(episode.text)], strict=True))
    titles = _choose_titles(episode, kept, bounds, titler, counts)
    if not any(one.title for one in proposals):
        counts.pop("titles_empty", None)
    chapters = _add_times(episode, bounds, titles)
    return chapters, [Repair(code, REPAIR_SENTENCES[code], counts[code]) for code in REPAIR_SENTENCES if counts[code]]


def _place_proposals(
    episode: Episode, proposals: Sequence[ProposedChapter], counts: Counter[str]
) -> list[ProposedChapter]:
    """At starts of segments, in order, one at each."""
    inside = [one for one in proposals if 0 <= one.start < len(episode.text)]
    counts["chapters_out_of_text"] += len(proposals) - len(inside)
    counts["chapters_unordered"] += sum(b.start < a.start for a, b in itertools.pairwise(inside))
    kept: dict[int, ProposedChapter] = {}
    for one in sorted(inside, key=lambda proposed: proposed.start):
        start = _snap_to_segment(episode, one.start)
        counts["chapters_snapped"] += start != one.start
        there = kept.get(start)
        counts["chapters_at_one_place"] += there is not None
        if there is None or (not clean_title(there.title) and clean_title(one.title)):
            kept[start] = ProposedChapter(start, one.title)
    return list(kept.values())


def _snap_to_segment(episode: Episode, start: int) -> int:
    offsets = episode.segments.offsets
    if not offsets:
        return 0
    i = episode.segments.at(start)
    nearer = i + 1 < len(offsets) and offsets[i + 1] - start < start - offsets[i]
    return offsets[i + nearer]


def _start_at_zero(episode: Episode, kept: list[ProposedChapter], counts: Counter[str]) -> list[ProposedChapter]:
    if not kept:
        counts["first_chapter_added"] += 1
        return [ProposedChapter(0)]
    if kept[0].start == 0:
        return kept
    if count_words(episode.text, 0, kept[0].start) < _GREETING_WORDS:
        counts["first_chapter_moved"] += 1
        return [ProposedChapter(0, kept[0].title), *kept[1:]]
    counts["first_chapter_added"] += 1
    return [ProposedChapter(0), *kept]


def _merge_short_chapters(episode: Episode, kept: list[ProposedChapter], counts: Counter[str]) -> list[ProposedChapter]:
    """A short chapter goes to the one before; a short first one takes in the next, and its title where it has none."""
    long: list[ProposedChapter] = []
    ends = [*(one.start for one in kept[1:]), len(episode.text)]
    for one, end in zip(kept, ends, strict=True):
        if long and _count_words(episode, long[0].start, one.start) < MIN_CHAPTER_WORDS:
            long = [ProposedChapter(long[0].start, long[0].title or one.title)]
        elif not long or _count_words(episode, one.start, end) >= MIN_CHAPTER_WORDS:
            long.append(one)
            continue
        counts["chapters_too_short"] += 1
    if (spare := len(long) - MAX_CHAPTERS) > 0:
        counts["chapters_too_many"] += spare
        sizes = [
            b.start - a.start for a, b in zip(long[1:], [*long[2:], ProposedChapter(len(episode.text))], strict=True)
        ]
        dropped = set(sorted(range(len(sizes)), key=lambda i: (sizes[i], i))[:spare])
        long = [long[0], *(one for i, one in enumerate(long[1:]) if i not in dropped)]
    return long


def _count_words(episode: Episode, start: int, end: int) -> int:
    return count_words(episode.text, start, end)


def _choose_titles(
    episode: Episode,
    kept: Sequence[ProposedChapter],
    bounds: Sequence[tuple[int, int]],
    titler: Titler,
    counts: Counter[str],
) -> list[str]:
    titles: list[str] = []
    taken: set[str] = set()
    for one, (start, end) in zip(kept, bounds, strict=True):
        title, cut = (
            clean_title(one.title),
            len(one.title.split()) and clean_title(one.title) != clean_title(one.title, longest=None),
        )
        if not has_letter_or_digit(title):
            counts["titles_empty"] += 1
            title = ""
        elif title.casefold() in taken:
            counts["titles_repeated"] += 1
            title = ""
        elif not TitleVocabulary(episode, start, end).holds(title):
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
            titles[i] = _first_unused_title(offers[i], i + 1, taken)
            taken.add(titles[i].casefold())
    return titles


def _first_unused_title(offers: Sequence[str], number: int, taken: set[str]) -> str:
    """The first that no other chapter has; a number where there is none."""
    for offer in map(clean_title, offers):
        if offer and offer.casefold() not in taken:
            return offer
    title = f"Chapter {number}"
    while title.casefold() in taken:
        title += "′"
    return title


def _add_times(episode: Episode, bounds: Sequence[tuple[int, int]], titles: Sequence[str]) -> list[Chapter]:
    segments = episode.segments
    begins = [segments.second_at(start) for start, _ in bounds]
    ends = [*begins[1:], segments.last_second(len(episode.text))]
    return [
        Chapter(title, start, end, begin, stop)
        for title, (start, end), begin, stop in zip(titles, bounds, begins, ends, strict=True)
    ]


# Changes when the same proposals would become other chapters.
_ACCEPTANCE_VERSION = 2


class ChapterMaker:
    """An engine whose proposals are checked; missing and refused titles are made of the words of the chapter."""

    def __init__(self, engine: ChapterEngine, titler: Titler = phrase_titles) -> None:
        self.engine, self._titler = engine, titler

    @property
    def fingerprint(self) -> str:
        return f"{self.engine.fingerprint}-{_ACCEPTANCE_VERSION}"

    def chapters(self, episode: Episode, seconds: float | None = None) -> tuple[Sequence[Chapter], Sequence[Repair]]:
        """Raises what the engine raises (Overloaded, `chapters_late`)."""
        return accept_proposals(episode, self.engine.propose(episode, seconds), self._titler)


def open_chapter_engine(name: str, encoder: Encoder, model: str = "", *, threads: int | None = None) -> ChapterEngine:
    """The engine `tiling`, by the vectors of `encoder`, or `podtile` with the generator `model` (directory or name).

    Raises ConfigurationError: `unknown_engine`, and for podtile those of `open_podtile`.
    """
    tiling = TextTilingEngine(encoder)
    if name == "tiling":
        return tiling
    if name == "podtile":
        # torch and transformers, which workers without this engine need not have
        from models.chapters.podtile import open_podtile

        return open_podtile(model, tiling=tiling, threads=threads)
    raise ConfigurationError("unknown_engine", f"There is no chapter engine {name!r}: tiling and podtile there are.")
