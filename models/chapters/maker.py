"""Chapters of a talk, made from an engine's proposals.

`EngineChapterMaker` runs an engine and repairs its proposals: chapters begin with segments, are in order, cover the
talk, and have distinct titles. Titles of engines that were not trained on people's titles use words that occur in the
chapter or in the talk's title and description (`docs/decisions/0197`, `docs/decisions/0271`). Repairs are counted.
`open_chapter_engine` opens an engine by name: `tiling` (`docs/decisions/0194`) or `podtile`.
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

# A function that gives possible titles for each span of the text, best first.
Titler = Callable[[Episode, Sequence[tuple[int, int]]], Sequence[Sequence[str]]]
MAX_CHAPTERS = 1000  # the limit for producers
# Shorter chapters are usually errors of a generator: of 13,000 chapters by people, 1 in 50 has fewer words.
MIN_CHAPTER_WORDS = 12
# Fewer words before the first chapter belong to it: a greeting, a line of music.
_GREETING_WORDS = 50
# This number changes when the same proposals give other chapters.
_ACCEPTANCE_VERSION = 3
REPAIR_SENTENCES = {
    "chapters_out_of_text": "Proposed chapters that begin outside the text were removed.",
    "chapters_unordered": "Proposed chapters were not in order and were sorted.",
    "chapters_snapped": "Proposed chapters that begin within a segment were moved to the nearest segment's start.",
    "chapters_at_one_place": "Several proposed chapters began at one segment; the first with a title was kept.",
    "chapters_too_many": "There were more proposed chapters than a talk may have; the shortest were merged into the "
    "previous one.",
    "chapters_too_short": "Proposed chapters of fewer than 12 words were merged into a neighbour.",
    "first_chapter_moved": "The first proposed chapter was moved to the start of the talk.",
    "first_chapter_added": "The text before the first proposed chapter became a chapter.",
    "titles_cut": "Titles of more than 120 characters were truncated.",
    "titles_empty": "Words of the chapter replaced missing titles.",
    "titles_repeated": "Words of the chapter replaced titles that another chapter has.",
    "titles_invented": "Words of the chapter replaced titles whose words occur neither in the chapter nor in the "
    "talk's title and description.",
}


class EngineChapterMaker:
    """Chapter maker of an engine, with checks and repairs. Words of the chapter replace missing and refused titles."""

    def __init__(self, engine: ChapterEngine, titler: Titler = phrase_titles) -> None:
        self.engine, self._titler = engine, titler

    @property
    def fingerprint(self) -> str:
        return f"{self.engine.fingerprint}-{_ACCEPTANCE_VERSION}"

    def chapters(self, episode: Episode, seconds: float | None = None) -> tuple[Sequence[Chapter], Sequence[Repair]]:
        """Return the chapters of an episode and the repairs. Raises the engine's errors (Overloaded,
        `chapters_late`)."""
        proposals = self.engine.propose(episode, seconds)
        return accept_proposals(episode, proposals, self._titler, new_words=self.engine.trained_titles)


def open_chapter_engine(name: str, encoder: Encoder, model: str = "", *, threads: int | None = None) -> ChapterEngine:
    """Open the engine `tiling` (with the vectors of `encoder`) or `podtile` (with the generator `model`).

    `model`: a directory or name. Raises ConfigurationError: `unknown_engine`, and for podtile those of `open_podtile`.
    """
    tiling = TextTilingEngine(encoder)
    if name == "tiling":
        return tiling
    if name == "podtile":
        # The module imports torch and transformers, which workers with another engine do not have.
        from models.chapters.podtile import open_podtile

        return open_podtile(model, tiling=tiling, threads=threads)
    raise ConfigurationError("unknown_engine", f"There is no chapter engine {name!r}. Engines: tiling, podtile.")


def accept_proposals(
    episode: Episode, proposals: Sequence[ProposedChapter], titler: Titler, *, new_words: bool = False
) -> tuple[list[Chapter], list[Repair]]:
    """Turn proposals into ordered chapters that begin with segments, cover the text and have distinct titles.

    A talk without words has no chapters. `titler` gives missing titles; this counts as a repair unless the engine
    proposes no titles at all. `new_words`: titles may consist of words that neither the chapter nor the talk's title
    and description has.
    """
    counts: Counter[str] = Counter()
    if not episode.text.strip() or not proposals:
        return [], []
    kept = _place_proposals(episode, proposals, counts)
    kept = _start_at_zero(episode, kept, counts)
    kept = _merge_short_chapters(episode, kept, counts)
    starts = [chapter.start for chapter in kept]
    bounds = list(zip(starts, [*starts[1:], len(episode.text)], strict=True))
    titles = _choose_titles(episode, kept, bounds, titler, counts, new_words=new_words)
    if not any(proposal.title for proposal in proposals):
        counts.pop("titles_empty", None)
    chapters = _add_times(episode, bounds, titles)
    return chapters, [Repair(code, REPAIR_SENTENCES[code], counts[code]) for code in REPAIR_SENTENCES if counts[code]]


def _place_proposals(
    episode: Episode, proposals: Sequence[ProposedChapter], counts: Counter[str]
) -> list[ProposedChapter]:
    """Move proposals to starts of segments, in order, at most one at each."""
    inside = [proposal for proposal in proposals if 0 <= proposal.start < len(episode.text)]
    counts["chapters_out_of_text"] += len(proposals) - len(inside)
    counts["chapters_unordered"] += sum(b.start < a.start for a, b in itertools.pairwise(inside))
    kept: dict[int, ProposedChapter] = {}
    for proposal in sorted(inside, key=lambda proposal: proposal.start):
        start = _snap_to_segment(episode, proposal.start)
        counts["chapters_snapped"] += start != proposal.start
        earlier = kept.get(start)
        counts["chapters_at_one_place"] += earlier is not None
        if earlier is None or (not clean_title(earlier.title) and clean_title(proposal.title)):
            kept[start] = ProposedChapter(start, proposal.title)
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
    """Merge a short chapter into the previous one; a short first chapter takes in the next (and its title if
    needed)."""
    long: list[ProposedChapter] = []
    ends = [*(chapter.start for chapter in kept[1:]), len(episode.text)]
    for chapter, end in zip(kept, ends, strict=True):
        if long and count_words(episode.text, long[0].start, chapter.start) < MIN_CHAPTER_WORDS:
            long = [ProposedChapter(long[0].start, long[0].title or chapter.title)]
        elif not long or count_words(episode.text, chapter.start, end) >= MIN_CHAPTER_WORDS:
            long.append(chapter)
            continue
        counts["chapters_too_short"] += 1
    if (excess := len(long) - MAX_CHAPTERS) > 0:
        counts["chapters_too_many"] += excess
        sizes = [
            b.start - a.start for a, b in zip(long[1:], [*long[2:], ProposedChapter(len(episode.text))], strict=True)
        ]
        dropped = set(sorted(range(len(sizes)), key=lambda i: (sizes[i], i))[:excess])
        long = [long[0], *(chapter for i, chapter in enumerate(long[1:]) if i not in dropped)]
    return long


def _choose_titles(
    episode: Episode,
    kept: Sequence[ProposedChapter],
    bounds: Sequence[tuple[int, int]],
    titler: Titler,
    counts: Counter[str],
    *,
    new_words: bool,
) -> list[str]:
    titles: list[str] = []
    used: set[str] = set()
    for chapter, (start, end) in zip(kept, bounds, strict=True):
        title = clean_title(chapter.title)
        if not has_letter_or_digit(title):
            counts["titles_empty"] += 1
            title = ""
        elif title.casefold() in used:
            counts["titles_repeated"] += 1
            title = ""
        elif not new_words and not TitleVocabulary(episode, start, end).holds(title):
            counts["titles_invented"] += 1
            title = ""
        else:
            counts["titles_cut"] += title != clean_title(chapter.title, longest=None)
            used.add(title.casefold())
        titles.append(title)
    missing = [i for i, title in enumerate(titles) if not title]
    if missing:
        candidates = titler(episode, bounds)
        for i in missing:
            titles[i] = _first_unused_title(candidates[i], i + 1, used)
            used.add(titles[i].casefold())
    return titles


def _first_unused_title(candidates: Sequence[str], number: int, used: set[str]) -> str:
    """Return the first candidate that no other chapter has, otherwise the chapter's number."""
    for candidate in map(clean_title, candidates):
        if candidate and candidate.casefold() not in used:
            return candidate
    title = f"Chapter {number}"
    while title.casefold() in used:
        title += "′"
    return title


def _add_times(episode: Episode, bounds: Sequence[tuple[int, int]], titles: Sequence[str]) -> list[Chapter]:
    segments = episode.segments
    start_times = [segments.second_at(start) for start, _ in bounds]
    end_times = [*start_times[1:], segments.last_second(len(episode.text))]
    return [
        Chapter(title, start, end, start_time, end_time)
        for title, (start, end), start_time, end_time in zip(titles, bounds, start_times, end_times, strict=True)
    ]
