"""Simpler ways to divide a talk, for comparison: equal lengths, chance, and TextTiling twice.

Each gives the segments where chapters begin after the first one. TextTiling's parameters were chosen on the tuning half
of two sets, as the engine's were (docs/decisions/0194-chapters-by-tiling.md); of equal lengths one chapter is best.

Pk, WindowDiff and boundary similarity (segeval), ROUGE-L (rouge-score) and likeness by sparse vectors of titles.

Several ways to make chapters, measured on the same episodes.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from models.chapters.engine import AnnotatedEpisode, Episode, ProposedChapter
from models.chapters.maker import accept_proposals
from models.chapters.texttiling import TextBlock, count_words, cut_episode_blocks
from models.chapters.titles import load_common_words, phrase_titles, tokenise_words
from models.encoder import Encoder
from services.encoders.vectors import SparseVector, merge_max
from services.errors import ConfigurationError, Overloaded
from services.talk.model import Chapter, Repair


@dataclass(frozen=True, slots=True)
class SegmentationScores:
    """Pk and WindowDiff are errors, boundary similarity is none (1 is the same); `share` of as many chapters."""

    pk: float
    window_diff: float
    boundary_similarity: float
    share: float


def score_segmentation(human: Sequence[int], made: Sequence[int], count: int) -> SegmentationScores | None:
    """Of two divisions of `count` segments by the segments where chapters begin after the first one.

    None where there are fewer segments than the windows of Pk and WindowDiff need. The window is half a mean chapter
    of `human`, as published. Raises ConfigurationError (`missing_extra`).
    """
    reference, hypothesis = _segment_masses(human, count), _segment_masses(made, count)
    if count <= max(2, round(count / len(reference) / 2)):
        return None
    segeval = _import_package("segeval", "segeval")
    return SegmentationScores(
        float(segeval.pk(hypothesis, reference)),
        float(segeval.window_diff(hypothesis, reference)),
        # segeval has no answer where neither has a boundary
        1.0 if len(hypothesis) == len(reference) == 1 else float(segeval.boundary_similarity(hypothesis, reference)),
        len(hypothesis) / len(reference),
    )


def _segment_masses(starts: Sequence[int], count: int) -> tuple[int, ...]:
    inside = sorted({start for start in starts if 0 < start < count})
    return tuple(b - a for a, b in zip([0, *inside], [*inside, count], strict=True))


def score_rouge_l(human: str, made: str) -> float:
    """F of the longest common subsequence of stems. Raises ConfigurationError (`missing_extra`)."""
    return float(_rouge_scorer().score(human, made)["rougeL"].fmeasure)


class TitleSimilarity:
    """Compares titles by the vectors of an encoder; each title is encoded once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._vectors: dict[str, SparseVector] = {}

    def likeness(self, human: str, made: str) -> float:
        """Cosine of the vectors of two titles; 0 where one says nothing."""
        first, second = self._vector(human), self._vector(made)
        norm = math.sqrt(_dot_product(first, first) * _dot_product(second, second))
        return _dot_product(first, second) / norm if norm else 0.0

    def _vector(self, title: str) -> SparseVector:
        if title not in self._vectors:
            self._vectors[title] = merge_max(self._encoder.encode(self._encoder.windows(title)))
        return self._vectors[title]


def pair_titles(human: Sequence[tuple[int, int, str]], made: Sequence[Chapter]) -> list[tuple[str, str]]:
    """Each title that people gave, with that of the chapter that shares most of its text; stretches are characters."""
    pairs = []
    for start, end, title in human:
        if title and made:
            shared = [min(end, one.end) - max(start, one.start) for one in made]
            pairs.append((title, made[int(np.argmax(shared))].title))
    return pairs


def _dot_product(first: SparseVector, second: SparseVector) -> float:
    _, i, j = np.intersect1d(first.ids, second.ids, assume_unique=True, return_indices=True)
    return float(first.weights[i].astype(np.float64) @ second.weights[j].astype(np.float64))


@cache
def _rouge_scorer() -> Any:
    return _import_package("rouge_score.rouge_scorer", "rouge-score").RougeScorer(["rougeL"], use_stemmer=True)


def _import_package(module: str, package: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise ConfigurationError(
            "missing_extra", f"Measuring chapters needs the package {package}: pip install -e '.[eval]'."
        ) from None


DivideEpisode = Callable[[Episode], Sequence[int]]


def divide_not_at_all(episode: Episode) -> list[int]:
    """No division at all: what Pk and WindowDiff say of it is what a division must beat to be of use."""
    return []


def divide_equally(episode: Episode, words_each: float = 1200) -> list[int]:
    """As many chapters of equal length as fit."""
    said = _words_before(episode)
    count = max(1, round(said[-1] / words_each))
    return _inner_boundaries((int(np.searchsorted(said, said[-1] * i / count)) for i in range(1, count)), len(said) - 1)


def divide_randomly(episode: Episode, words_each: float = 1200) -> list[int]:
    """As many as in `equal`, anywhere; the same for the same text."""
    said = _words_before(episode)
    count = max(1, round(said[-1] / words_each))
    drawn = random.Random(episode.text)  # noqa: S311 (a division, not a secret)
    return _inner_boundaries(
        (int(np.searchsorted(said, drawn.uniform(0, said[-1]))) for _ in range(count - 1)), len(said) - 1
    )


def divide_by_nltk(episode: Episode) -> list[int]:
    """NLTK's TextTilingTokenizer with its defaults; segments are its paragraphs."""
    try:
        from nltk.tokenize.texttiling import TextTilingTokenizer
    except ImportError:
        raise ConfigurationError(
            "missing_extra", "TextTiling needs the package nltk: pip install -e '.[eval]'."
        ) from None
    offsets = episode.segments.offsets
    parts = [
        " ".join(episode.text[start:end].split()) or "-"
        for start, end in zip(offsets, [*offsets[1:], len(episode.text)], strict=True)
    ]
    try:
        tiles = TextTilingTokenizer(stopwords=sorted(load_common_words())).tokenize("\n\n".join(parts))
    except ValueError:  # too short for it
        return []
    found, segments = [], 0
    for tile in tiles[:-1]:
        segments += len([part for part in tile.split("\n\n") if part.strip()])
        found.append(segments)
    return _inner_boundaries(found, len(offsets))


def divide_by_texttiling(episode: Episode, *, reach: int = 16, rounds: int = 1, above: float = 3.0) -> list[int]:
    """Hearst's TextTiling on the engine's own blocks: valleys of word cosine between so many blocks on each side.

    A valley counts when it is deeper than the mean by `above` standard deviations; `rounds` of smoothing come before.
    """
    cut = cut_episode_blocks(episode)
    return find_valleys(episode, cut, count_block_words(episode, cut), reach=reach, rounds=rounds, above=above)


def find_valleys(
    episode: Episode,
    blocks: Sequence[TextBlock],
    counts: npt.NDArray[np.float32],
    *,
    reach: int,
    rounds: int,
    above: float,
) -> list[int]:
    """`divide_by_texttiling` of words that have been counted."""
    if len(blocks) < 3:
        return []
    depths = _valley_depths(_gap_similarity(counts, reach, rounds))
    least = depths.mean() + above * depths.std()
    open_ = np.array([i for i, block in enumerate(blocks) if block.opens and i])
    chosen: list[int] = []
    for gap in np.argsort(-depths, kind="stable"):
        if depths[gap] <= max(least, 0):
            break
        if all(abs(gap - other) > 1 for other in chosen):
            chosen.append(int(gap))
    if not len(open_):
        return []
    starts = {blocks[int(open_[np.argmin(np.abs(open_ - gap - 1))])].start for gap in chosen}
    return _inner_boundaries((episode.segments.at(start) for start in starts), len(episode.segments))


def count_block_words(episode: Episode, blocks: Sequence[TextBlock]) -> npt.NDArray[np.float32]:
    """Counts of words that mean something, up to each block."""
    places: dict[str, int] = {}
    counted = [
        [
            places.setdefault(word.plain, len(places))
            for word in tokenise_words(episode.text[block.start : block.end])
            if word.plain not in load_common_words()
        ]
        for block in blocks
    ]
    counts = np.zeros((len(blocks) + 1, max(1, len(places))), np.float32)
    for i, ids in enumerate(counted, 1):
        np.add.at(counts[i], ids, 1)
    return np.cumsum(counts, axis=0, out=counts)


def _gap_similarity(counts: npt.NDArray[np.float32], reach: int, rounds: int) -> npt.NDArray[np.float64]:
    gaps = np.arange(1, len(counts) - 1)
    sides = np.minimum(reach, np.minimum(gaps, len(counts) - 1 - gaps))
    left, right = counts[gaps] - counts[gaps - sides], counts[gaps + sides] - counts[gaps]
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: npt.NDArray[np.float64] = ((left * right).sum(axis=1) / np.maximum(norms, 1e-9)).astype(np.float64)
    for _ in range(rounds):
        padded = np.pad(found, 1, mode="edge")
        found = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    return found


def _valley_depths(likeness: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How far up it goes from each gap on both sides."""
    depths = np.zeros(len(likeness))
    for i, value in enumerate(likeness):
        left = right = i
        while left > 0 and likeness[left - 1] >= likeness[left]:
            left -= 1
        while right < len(likeness) - 1 and likeness[right + 1] >= likeness[right]:
            right += 1
        depths[i] = likeness[left] + likeness[right] - 2 * value
    return depths


def _words_before(episode: Episode) -> npt.NDArray[np.int64]:
    """Words up to the beginning of each segment, and all of them."""
    offsets = episode.segments.offsets
    sizes = [count_words(episode.text, a, b) for a, b in zip(offsets, [*offsets[1:], len(episode.text)], strict=True)]
    return np.concatenate([[0], np.cumsum(sizes)])


def _inner_boundaries(segments: Iterable[int], count: int) -> list[int]:
    """In order, each once, without the one that the talk begins with."""
    return sorted({segment for segment in segments if 0 < segment < count})


ChapteringResult = tuple[Sequence[Chapter], Sequence[Repair]]
ChapteringMethod = Callable[[AnnotatedEpisode], ChapteringResult]
# Of episodes that have no times: people speak about as fast.
_WORDS_PER_MINUTE = 150


@dataclass(slots=True)
class MethodTally:
    """What one way made of every episode."""

    divisions: list[SegmentationScores] = field(default_factory=list)
    titles: list[tuple[str, str]] = field(default_factory=list)
    repairs: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    hours: float = 0.0
    late: int = 0
    too_short: int = 0

    def figures(self, compared: TitleSimilarity | None) -> dict[str, Any]:
        """Means over episodes and over titles. `chapters_per_human` is a geometric mean."""
        found: dict[str, Any] = {"episodes": len(self.divisions)}
        if self.divisions:
            found["pk"] = round(fmean(one.pk for one in self.divisions), 4)
            found["window_diff"] = round(fmean(one.window_diff for one in self.divisions), 4)
            found["boundary_similarity"] = round(fmean(one.boundary_similarity for one in self.divisions), 4)
            found["chapters_per_human"] = round(math.exp(fmean(math.log(one.share) for one in self.divisions)), 2)
        if self.titles:
            found["titles"] = len(self.titles)
            found["title_rouge_l"] = round(fmean(score_rouge_l(human, made) for human, made in self.titles), 4)
            if compared is not None:
                found["title_similarity"] = round(fmean(compared.likeness(*pair) for pair in self.titles), 4)
        if self.hours:
            found["seconds_an_hour"] = round(self.seconds / self.hours, 2)
        counted = {"repairs": dict(sorted(self.repairs.items())), "late": self.late, "too_short": self.too_short}
        return found | {name: value for name, value in counted.items() if value}


def compare_methods(
    ways: Mapping[str, ChapteringMethod], episodes: Iterable[AnnotatedEpisode], done: Callable[[], None] = lambda: None
) -> dict[str, MethodTally]:
    """Every way on every episode. One that an engine is late with counts as a single chapter."""
    tallies = {name: MethodTally() for name in ways}
    for one in episodes:
        for name, way in ways.items():
            _measure_episode(tallies[name], one, way)
        done()
    return tallies


def make_division_method(division: DivideEpisode) -> ChapteringMethod:
    """Chapters that begin with the segments that `division` gives, titled as the engine tiling titles its own."""

    def way(one: AnnotatedEpisode) -> ChapteringResult:
        offsets = one.episode.segments.offsets
        return accept_proposals(
            one.episode, [ProposedChapter(offsets[i]) for i in (0, *division(one.episode))], phrase_titles
        )

    return way


def make_title_method(titler: Callable[[Episode, Sequence[int]], Sequence[ProposedChapter]]) -> ChapteringMethod:
    """The chapters that people made, with titles by an engine: how good those are, whatever the boundaries."""

    def way(one: AnnotatedEpisode) -> ChapteringResult:
        return accept_proposals(
            one.episode, titler(one.episode, [chapter.start for chapter in one.chapters]), phrase_titles
        )

    return way


def reference_chapters(one: AnnotatedEpisode) -> ChapteringResult:
    """The chapters that people made: what every measure says of no error."""
    return [Chapter(title, start, end) for start, end, title in reference_spans(one)], []


def reference_spans(one: AnnotatedEpisode) -> list[tuple[int, int, str]]:
    """Characters and title of each chapter that people made."""
    starts = [chapter.start for chapter in one.chapters]
    ends = [*starts[1:], len(one.episode.text)]
    return [(chapter.start, end, chapter.title) for chapter, end in zip(one.chapters, ends, strict=True)]


def episode_hours(episode: Episode) -> float:
    """How long a talk is, by its last time or by its words."""
    last = episode.segments.last_second(len(episode.text)) or episode.segments.second_at(len(episode.text))
    return last / 3600 if last else len(episode.text.split()) / _WORDS_PER_MINUTE / 60


def _measure_episode(tally: MethodTally, one: AnnotatedEpisode, way: ChapteringMethod) -> None:
    begun = time.perf_counter()
    try:
        chapters, repairs = way(one)
    except Overloaded:
        tally.late += 1
        chapters, repairs = [], []
    tally.seconds += time.perf_counter() - begun
    tally.hours += episode_hours(one.episode)
    tally.repairs.update({repair.code: repair.count for repair in repairs})
    at = one.episode.segments.at
    found = score_segmentation(
        [at(chapter.start) for chapter in one.chapters], [at(chapter.start) for chapter in chapters],
        len(one.episode.segments),
    )  # fmt: skip
    if found is None:
        tally.too_short += 1
    else:
        tally.divisions.append(found)
    tally.titles += pair_titles(reference_spans(one), chapters)
