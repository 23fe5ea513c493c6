"""Comparison of chapters with human ones: measures, baselines, and methods over the same episodes.

The measures are Pk, WindowDiff and boundary similarity (segeval), ROUGE-L (rouge-score) and the cosine of the titles'
sparse vectors. The baselines divide a talk not at all, equally, by chance, and by two implementations of TextTiling
(Hearst 1997). The parameters of `divide_by_texttiling` were chosen on the tuning half of two sets
(docs/decisions/0194-chapters-by-tiling.md). A division is the list of segments at which chapters after the first begin.
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

from cli.relevance.title_comparison import TitleSimilarity, pair_generated_titles, pair_titles
from models.chapters.engine import AnnotatedEpisode, Episode, ProposedChapter
from models.chapters.maker import accept_proposals
from models.chapters.texttiling import TextBlock, count_words, cut_episode_blocks
from models.chapters.titles import load_common_words, phrase_titles, tokenise_words
from services.errors import ConfigurationError, Overloaded
from services.talk.model import Chapter, Repair

DivideEpisode = Callable[[Episode], Sequence[int]]
ChapteringResult = tuple[Sequence[Chapter], Sequence[Repair]]
ChapteringMethod = Callable[[AnnotatedEpisode], ChapteringResult]
# Rate of speech, for episodes without times.
_WORDS_PER_MINUTE = 150


@dataclass(frozen=True, slots=True)
class SegmentationScores:
    """Scores of a division. Pk and WindowDiff are errors; boundary similarity is 1 for an equal division.

    `share` is the number of chapters over the number of human chapters.
    """

    pk: float
    window_diff: float
    boundary_similarity: float
    share: float


@dataclass(slots=True)
class MethodResults:
    """Results of a method over all episodes."""

    divisions: list[SegmentationScores] = field(default_factory=list)
    titles: list[tuple[str, str]] = field(default_factory=list)
    generated_titles: list[tuple[str, str]] = field(default_factory=list)
    repairs: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    hours: float = 0.0
    late: int = 0
    too_short: int = 0

    def figures(self, similarity: TitleSimilarity | None) -> dict[str, Any]:
        """Return means over episodes and over titles. `chapters_per_human` is a geometric mean."""
        figures: dict[str, Any] = {"episodes": len(self.divisions)}
        if self.divisions:
            figures["pk"] = round(fmean(scores.pk for scores in self.divisions), 4)
            figures["window_diff"] = round(fmean(scores.window_diff for scores in self.divisions), 4)
            figures["boundary_similarity"] = round(fmean(scores.boundary_similarity for scores in self.divisions), 4)
            figures["chapters_per_human"] = round(
                math.exp(fmean(math.log(scores.share) for scores in self.divisions)), 2
            )
        if self.titles:
            figures["titles"] = len(self.titles)
            found = fmean(score_rouge_l(*pair) for pair in self.titles)
            figures["title_rouge_l"] = round(found, 4)
            if self.generated_titles:
                # Each title of too many chapters needs a counterpart, so superfluous chapters cost here.
                right = fmean(score_rouge_l(*pair) for pair in self.generated_titles)
                figures["title_rouge_l_generated"] = round(right, 4)
                figures["title_rouge_l_f1"] = round(2 * found * right / (found + right) if found + right else 0.0, 4)
            if similarity is not None:
                figures["title_similarity"] = round(fmean(similarity.cosine(*pair) for pair in self.titles), 4)
        if self.hours:
            figures["seconds_an_hour"] = round(self.seconds / self.hours, 2)
        counts = {"repairs": dict(sorted(self.repairs.items())), "late": self.late, "too_short": self.too_short}
        return figures | {name: value for name, value in counts.items() if value}


def compare_methods(
    methods: Mapping[str, ChapteringMethod],
    episodes: Iterable[AnnotatedEpisode],
    done: Callable[[], None] = lambda: None,
) -> dict[str, MethodResults]:
    """Measure every method on every episode. An episode that exceeds the time limit counts as a single chapter."""
    results_by_method = {name: MethodResults() for name in methods}
    for annotated in episodes:
        for name, method in methods.items():
            _measure_episode(results_by_method[name], annotated, method)
        done()
    return results_by_method


def _measure_episode(results: MethodResults, annotated: AnnotatedEpisode, method: ChapteringMethod) -> None:
    begun = time.perf_counter()
    try:
        chapters, repairs = method(annotated)
    except Overloaded:
        results.late += 1
        chapters, repairs = [], []
    results.seconds += time.perf_counter() - begun
    results.hours += episode_hours(annotated.episode)
    results.repairs.update({repair.code: repair.count for repair in repairs})
    segments = annotated.episode.segments
    human = [segments.at(chapter.start) for chapter in annotated.chapters]
    scores = score_segmentation(human, [segments.at(chapter.start) for chapter in chapters], len(segments))
    if scores is None:
        results.too_short += 1
    else:
        results.divisions.append(scores)
    human_spans = reference_spans(annotated)
    results.titles += pair_titles(human_spans, chapters)
    results.generated_titles += pair_generated_titles(human_spans, chapters)


def make_division_method(division: DivideEpisode) -> ChapteringMethod:
    """Return a method that divides by `division` and makes titles as the engine tiling does."""

    def method(annotated: AnnotatedEpisode) -> ChapteringResult:
        episode = annotated.episode
        offsets = episode.segments.offsets
        return accept_proposals(episode, [ProposedChapter(offsets[i]) for i in (0, *division(episode))], phrase_titles)

    return method


def make_title_method(titler: Callable[[Episode, Sequence[int]], Sequence[ProposedChapter]]) -> ChapteringMethod:
    """Return a method with human boundaries and an engine's titles, which measures only the titles."""

    def method(annotated: AnnotatedEpisode) -> ChapteringResult:
        starts = [chapter.start for chapter in annotated.chapters]
        return accept_proposals(annotated.episode, titler(annotated.episode, starts), phrase_titles)

    return method


def reference_chapters(annotated: AnnotatedEpisode) -> ChapteringResult:
    """Return the human chapters, which show the best value of each measure."""
    return [Chapter(title, start, end) for start, end, title in reference_spans(annotated)], []


def reference_spans(annotated: AnnotatedEpisode) -> list[tuple[int, int, str]]:
    """Return start, end (characters) and title of each human chapter."""
    starts = [chapter.start for chapter in annotated.chapters]
    ends = [*starts[1:], len(annotated.episode.text)]
    return [(chapter.start, end, chapter.title) for chapter, end in zip(annotated.chapters, ends, strict=True)]


def episode_hours(episode: Episode) -> float:
    """Return the length of a talk in hours, by its last time or else by its words."""
    last = episode.segments.last_second(len(episode.text)) or episode.segments.second_at(len(episode.text))
    return last / 3600 if last else len(episode.text.split()) / _WORDS_PER_MINUTE / 60


def score_segmentation(human: Sequence[int], generated: Sequence[int], count: int) -> SegmentationScores | None:
    """Score a division of `count` segments against a human one.

    Returns None if there are fewer segments than the window of Pk and WindowDiff, which is half of the mean human
    chapter, as published. Raises ConfigurationError (`missing_extra`).
    """
    reference, hypothesis = _segment_masses(human, count), _segment_masses(generated, count)
    if count <= max(2, round(count / len(reference) / 2)):
        return None
    segeval = _import_package("segeval", "segeval")
    return SegmentationScores(
        float(segeval.pk(hypothesis, reference)),
        float(segeval.window_diff(hypothesis, reference)),
        # segeval returns no score if neither division has a boundary.
        1.0 if len(hypothesis) == len(reference) == 1 else float(segeval.boundary_similarity(hypothesis, reference)),
        len(hypothesis) / len(reference),
    )


def _segment_masses(starts: Sequence[int], count: int) -> tuple[int, ...]:
    """Return the number of segments of each chapter."""
    inside = sorted({start for start in starts if 0 < start < count})
    return tuple(b - a for a, b in zip([0, *inside], [*inside, count], strict=True))


def score_rouge_l(human: str, generated: str) -> float:
    """Return ROUGE-L, the F measure of the longest common subsequence of stems.

    Raises ConfigurationError (`missing_extra`).
    """
    return float(_rouge_scorer().score(human, generated)["rougeL"].fmeasure)


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


def divide_not_at_all(episode: Episode) -> list[int]:
    """Return no boundaries. A useful division has lower Pk and WindowDiff than this."""
    return []


def divide_equally(episode: Episode, words_each: float = 1200) -> list[int]:
    """Divide a talk into chapters of equal length, of about `words_each` words."""
    words = _words_before(episode)
    count = max(1, round(words[-1] / words_each))
    starts = (int(np.searchsorted(words, words[-1] * i / count)) for i in range(1, count))
    return _inner_boundaries(starts, len(words) - 1)


def divide_randomly(episode: Episode, words_each: float = 1200) -> list[int]:
    """Divide a talk into as many chapters as `divide_equally`, at random places. Equal texts have equal divisions."""
    words = _words_before(episode)
    count = max(1, round(words[-1] / words_each))
    generator = random.Random(episode.text)  # noqa: S311 (a division, not a secret)
    starts = (int(np.searchsorted(words, generator.uniform(0, words[-1]))) for _ in range(count - 1))
    return _inner_boundaries(starts, len(words) - 1)


def divide_by_nltk(episode: Episode) -> list[int]:
    """Divide a talk by NLTK's TextTilingTokenizer with its defaults. Segments are its paragraphs.

    Raises ConfigurationError (`missing_extra`).
    """
    try:
        from nltk.tokenize.texttiling import TextTilingTokenizer
    except ImportError:
        raise ConfigurationError(
            "missing_extra", "TextTiling needs the package nltk: pip install -e '.[eval]'."
        ) from None
    offsets = episode.segments.offsets
    paragraphs = [
        " ".join(episode.text[start:end].split()) or "-"
        for start, end in zip(offsets, [*offsets[1:], len(episode.text)], strict=True)
    ]
    try:
        tiles = TextTilingTokenizer(stopwords=sorted(load_common_words())).tokenize("\n\n".join(paragraphs))
    except ValueError:  # the text is too short
        return []
    starts, segments = [], 0
    for tile in tiles[:-1]:
        segments += len([paragraph for paragraph in tile.split("\n\n") if paragraph.strip()])
        starts.append(segments)
    return _inner_boundaries(starts, len(offsets))


def divide_by_texttiling(episode: Episode, *, reach: int = 16, rounds: int = 1, above: float = 3.0) -> list[int]:
    """Divide a talk by Hearst's TextTiling on the blocks of the engine tiling.

    The similarity at a gap is the cosine of the words of `reach` blocks on each side, smoothed `rounds` times. A valley
    is a boundary if it is deeper than the mean by `above` standard deviations.
    """
    blocks = cut_episode_blocks(episode)
    return find_valleys(episode, blocks, count_block_words(episode, blocks), reach=reach, rounds=rounds, above=above)


def find_valleys(
    episode: Episode,
    blocks: Sequence[TextBlock],
    counts: npt.NDArray[np.float32],
    *,
    reach: int,
    rounds: int,
    above: float,
) -> list[int]:
    """Divide a talk as `divide_by_texttiling`, from counted words."""
    if len(blocks) < 3:
        return []
    depths = _valley_depths(_gap_similarity(counts, reach, rounds))
    threshold = depths.mean() + above * depths.std()
    open_ = np.array([i for i, block in enumerate(blocks) if block.opens and i])
    chosen: list[int] = []
    for gap in np.argsort(-depths, kind="stable"):
        if depths[gap] <= max(threshold, 0):
            break
        if all(abs(gap - other) > 1 for other in chosen):
            chosen.append(int(gap))
    if not len(open_):
        return []
    starts = {blocks[int(open_[np.argmin(np.abs(open_ - gap - 1))])].start for gap in chosen}
    return _inner_boundaries((episode.segments.at(start) for start in starts), len(episode.segments))


def count_block_words(episode: Episode, blocks: Sequence[TextBlock]) -> npt.NDArray[np.float32]:
    """Return cumulative counts of content words, float32 [blocks + 1, words]: row i counts the blocks before i."""
    columns: dict[str, int] = {}
    word_ids = [
        [
            columns.setdefault(word.plain, len(columns))
            for word in tokenise_words(episode.text[block.start : block.end])
            if word.plain not in load_common_words()
        ]
        for block in blocks
    ]
    counts = np.zeros((len(blocks) + 1, max(1, len(columns))), np.float32)
    for i, ids in enumerate(word_ids, 1):
        np.add.at(counts[i], ids, 1)
    return np.cumsum(counts, axis=0, out=counts)


def _gap_similarity(counts: npt.NDArray[np.float32], reach: int, rounds: int) -> npt.NDArray[np.float64]:
    gaps = np.arange(1, len(counts) - 1)
    sides = np.minimum(reach, np.minimum(gaps, len(counts) - 1 - gaps))
    left, right = counts[gaps] - counts[gaps - sides], counts[gaps + sides] - counts[gaps]
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    similarity: npt.NDArray[np.float64] = ((left * right).sum(axis=1) / np.maximum(norms, 1e-9)).astype(np.float64)
    for _ in range(rounds):
        padded = np.pad(similarity, 1, mode="edge")
        similarity = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    return similarity


def _valley_depths(similarity: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the depth of each gap below the peaks on both sides."""
    depths = np.zeros(len(similarity))
    for i, value in enumerate(similarity):
        left = right = i
        while left > 0 and similarity[left - 1] >= similarity[left]:
            left -= 1
        while right < len(similarity) - 1 and similarity[right + 1] >= similarity[right]:
            right += 1
        depths[i] = similarity[left] + similarity[right] - 2 * value
    return depths


def _words_before(episode: Episode) -> npt.NDArray[np.int64]:
    """Return the number of words before each segment, and the total."""
    offsets = episode.segments.offsets
    sizes = [count_words(episode.text, a, b) for a, b in zip(offsets, [*offsets[1:], len(episode.text)], strict=True)]
    return np.concatenate([[0], np.cumsum(sizes)])


def _inner_boundaries(segments: Iterable[int], count: int) -> list[int]:
    """Return the boundaries inside the talk, sorted and without repetitions."""
    return sorted({segment for segment in segments if 0 < segment < count})
