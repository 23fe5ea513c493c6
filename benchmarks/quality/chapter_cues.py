"""Cue words of chapter boundaries, fitted to chapters that people made.

    python -m benchmarks chapter_cues ../shared/data --json benchmarks/results/chapter-cues.json

A logistic regression predicts for each segment of the tuning half whether a chapter begins there, from the words around
it. A word is kept if it is in a fifth of the episodes of each set and has the same sign when each set is fitted alone,
so no word depends on a show's subject (docs/decisions/0194). `encode_episodes` keeps the vectors of blocks in a cache:
encoding takes half an hour, division a minute.
"""

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.collections import load_vectors, save_vectors
from benchmarks.measuring import make_parser, run_benchmark
from models.chapters.engine import AnnotatedEpisode, read_episodes
from models.chapters.texttiling import (
    BoundaryCues,
    TextBlock,
    cut_episode_blocks,
    encode_blocks,
    is_after_question,
    words_around,
)
from models.encoder import Encoder
from services.encoders.vectors import SparseVector

EPISODE_SETS = ("syntax_fm", "bitcoin_transcripts")
_MIN_EPISODE_SHARE = 0.2
_MIN_WEIGHT = 0.1
_QUESTION_FEATURE = "after_question"
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SegmentFeatures:
    """Features of each segment but the first, and whether a chapter begins with it."""

    features: Sequence[Sequence[str]]
    begins: Sequence[bool]


@dataclass(frozen=True, slots=True)
class EncodedEpisode:
    """Episode with its blocks and a vector of each block."""

    annotated: AnnotatedEpisode
    cut: Sequence[TextBlock]
    vectors: Sequence[SparseVector]


def chapter_cues(argv: list[str] | None = None) -> None:
    """Fit the cue words of chapter boundaries and measure how well they rank segments."""
    parser = make_parser("chapter_cues", chapter_cues.__doc__)
    parser.add_argument("data", type=Path, help="folder of chapters/*.jsonl.gz")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the cues there")
    run_benchmark("chapter_cues", parser, measure_cues, argv)


def measure_cues(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Fit on the tuning half, and return the quality on both halves."""
    sets = {name: list(read_episodes(arguments.data / "chapters" / f"{name}.jsonl.gz")) for name in EPISODE_SETS}
    tuning = {name: [episode for episode in episodes if not episode.held_out] for name, episodes in sets.items()}
    cues = fit_cues([[extract_features(episode) for episode in episodes] for episodes in tuning.values()])
    figures = {
        "words": {place: len(getattr(cues, place)) for place in ("first", "opening", "before")},
        "ranked_right": {
            name: {
                "tuning": round(area_under_curve(cues, tuning[name]), 4),
                "held_out": round(area_under_curve(cues, [episode for episode in episodes if episode.held_out]), 4),
            }
            for name, episodes in sets.items()
        },
    }
    print(json.dumps(figures, indent=1))
    if arguments.write:
        words = {place: dict(sorted(getattr(cues, place).items())) for place in ("first", "opening", "before")}
        written = {**words, "after_question": cues.after_question}
        arguments.write.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return figures


def extract_features(annotated: AnnotatedEpisode) -> SegmentFeatures:
    """Return the features `first word`, `opening word`, `before word` and `after_question` of each segment."""
    starts = {chapter.start for chapter in annotated.chapters}
    offsets = list(annotated.episode.segments.offsets)[1:]
    return SegmentFeatures(
        [_features_at(annotated.episode.text, at) for at in offsets], [at in starts for at in offsets]
    )


def _features_at(text: str, offset: int) -> list[str]:
    opening, before = words_around(text, offset)
    features = [f"first {word}" for word in opening[:1]]
    features += [f"opening {word}" for word in sorted(set(opening))]
    features += [f"before {word}" for word in sorted(set(before))]
    return [*features, _QUESTION_FEATURE] if is_after_question(text, offset) else features


def fit_cues(sets: Sequence[Sequence[SegmentFeatures]]) -> BoundaryCues:
    """Fit the cues to several sets of equal weight."""
    names = _common_features(sets)
    alone = [_fit_weights([episodes], names, 0.03) for episodes in sets]
    together = _fit_weights(sets, names, 0.03)
    kept = [
        name
        for i, name in enumerate(names)
        if all(weights[i] * together[i] > 0 for weights in alone) and abs(together[i]) >= _MIN_WEIGHT
    ]
    cues: dict[str, dict[str, float]] = {"first": {}, "opening": {}, "before": {}}
    question = 0.0
    for name, weight in zip(kept, _fit_weights(sets, kept, 0.1), strict=True):
        place, _, word = name.partition(" ")
        if name == _QUESTION_FEATURE:
            question = round(float(weight), 2)
        elif abs(weight) >= _MIN_WEIGHT:
            cues[place][word] = round(float(weight), 2)
    return BoundaryCues(**cues, after_question=question)


def _common_features(sets: Sequence[Sequence[SegmentFeatures]]) -> list[str]:
    names: set[str] | None = None
    for episodes in sets:
        counts = Counter(name for episode in episodes for name in {name for row in episode.features for name in row})
        frequent = {name for name, count in counts.items() if count >= _MIN_EPISODE_SHARE * len(episodes)}
        names = frequent if names is None else names & frequent
    return sorted(names or ())


def _fit_weights(sets: Sequence[Sequence[SegmentFeatures]], names: Sequence[str], strength: float) -> FloatArray:
    """Fit a logistic regression with an L2 penalty by Newton's method.

    The segments of a set are weighted as if it had 500 chapter boundaries.
    """
    place = {name: i + 1 for i, name in enumerate(names)}  # 0 is the constant
    rows: list[list[int]] = []
    truth: list[bool] = []
    counts: list[float] = []
    for episodes in sets:
        weight = 500 / max(1, sum(sum(episode.begins) for episode in episodes))
        for episode in episodes:
            rows += [[0, *(place[name] for name in row if name in place)] for row in episode.features]
            truth += episode.begins
            counts += [weight] * len(episode.begins)
    matrix = np.zeros((len(rows), len(names) + 1), np.float32)
    for i, row in enumerate(rows):
        matrix[i, row] = 1
    begins, count = np.array(truth, np.float32), np.array(counts, np.float32)
    weights = np.zeros(len(names) + 1, np.float32)
    penalty = np.full(len(names) + 1, 1 / strength, np.float32)
    penalty[0] = 0
    for _ in range(25):
        probability = 1 / (1 + np.exp(-(matrix @ weights)))
        gradient = matrix.T @ (count * (begins - probability)) - penalty * weights
        hessian = (matrix * (count * probability * (1 - probability))[:, None]).T @ matrix + np.diag(penalty)
        step = np.linalg.solve(hessian.astype(np.float64), gradient.astype(np.float64))
        weights += step.astype(np.float32)
        if np.abs(step).max() < 1e-4:
            break
    return weights[1:].astype(np.float64)


def area_under_curve(cues: BoundaryCues, episodes: Sequence[AnnotatedEpisode]) -> float:
    """Return the area under the ROC curve: how often a segment with a boundary outweighs a segment without."""
    scores: list[FloatArray] = []
    truth: list[bool] = []
    for annotated in episodes:
        starts = {chapter.start for chapter in annotated.chapters}
        offsets = list(annotated.episode.segments.offsets)[1:]
        scores.append(cues.of(annotated.episode.text, offsets))
        truth += [at in starts for at in offsets]
    weights, begins = np.concatenate(scores), np.array(truth)
    values, places, counts = np.unique(weights, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    ranks = (below + (counts + 1) / 2)[places] if len(values) else weights
    positives = int(begins.sum())
    rank_sum = ranks[begins].sum() - positives * (positives + 1) / 2
    return float(rank_sum / (positives * (len(begins) - positives)))


def encode_episodes(
    encoder: Encoder, episodes: Iterable[AnnotatedEpisode], cache: Path | None
) -> Iterator[EncodedEpisode]:
    """Yield episodes with vectors. Files in `cache` keep them by encoder, text and cut for the next run."""
    started, blocks = time.perf_counter(), 0
    for number, annotated in enumerate(episodes, 1):
        cut = cut_episode_blocks(annotated.episode)
        path = cache / f"{_blocks_fingerprint(encoder, annotated, cut)}.npz" if cache else None
        if path and path.is_file():
            yield EncodedEpisode(annotated, cut, load_vectors(path))
            continue
        vectors = encode_blocks(encoder, annotated.episode.text, cut)
        if path:
            save_vectors(path, vectors)
        blocks += len(cut)
        if number % 20 == 0:
            print(f"  {number} episodes, {blocks / (time.perf_counter() - started):.0f} blocks a second", flush=True)
        yield EncodedEpisode(annotated, cut, vectors)


def _blocks_fingerprint(encoder: Encoder, annotated: AnnotatedEpisode, cut: Sequence[TextBlock]) -> str:
    key = f"{encoder.fingerprint} {[block.start for block in cut]} {annotated.episode.text}"
    return f"blocks-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
