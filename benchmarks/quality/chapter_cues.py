"""How chapters begin: fits the words of `models/chapters/tiling/cues.json` to chapters that people made.

    python -m benchmarks.chapter_cues ../shared/data --json benchmarks/results/chapter-cues.json

A logistic regression says of each segment of the tuning half whether a chapter begins there, from the words around it.
Kept are words that are in a fifth of the episodes of each set and count in the same direction when each set is fitted
alone, so that none is there because of what a show is about.

Episodes with the vectors of their blocks, from a cache: encoding takes half an hour, dividing a minute.
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


@dataclass(frozen=True, slots=True)
class EncodedEpisode:
    """An episode, its blocks, and a vector of each."""

    one: AnnotatedEpisode
    cut: Sequence[TextBlock]
    vectors: Sequence[SparseVector]


def encode_episodes(
    encoder: Encoder, episodes: Iterable[AnnotatedEpisode], cache: Path | None
) -> Iterator[EncodedEpisode]:
    """Files in `cache` save the next run the work; each belongs to the encoder, the text and how it is cut."""
    started, blocks = time.perf_counter(), 0
    for number, one in enumerate(episodes, 1):
        cut = cut_episode_blocks(one.episode)
        path = cache / f"{_blocks_fingerprint(encoder, one, cut)}.npz" if cache else None
        if path and path.is_file():
            yield EncodedEpisode(one, cut, load_vectors(path))
            continue
        vectors = encode_blocks(encoder, one.episode.text, cut)
        if path:
            save_vectors(path, vectors)
        blocks += len(cut)
        if number % 20 == 0:
            print(f"  {number} episodes, {blocks / (time.perf_counter() - started):.0f} blocks a second", flush=True)
        yield EncodedEpisode(one, cut, vectors)


def _blocks_fingerprint(encoder: Encoder, one: AnnotatedEpisode, cut: Sequence[TextBlock]) -> str:
    said = f"{encoder.fingerprint} {[block.start for block in cut]} {one.episode.text}"
    return f"blocks-{hashlib.sha256(said.encode()).hexdigest()[:24]}"


EPISODE_SETS = ("syntax_fm", "bitcoin_transcripts")
_MIN_EPISODE_SHARE = 0.2
_MIN_WEIGHT = 0.1  # of a weight that is kept
_QUESTION_FEATURE = "after_question"
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SegmentFeatures:
    """Of each segment but the first: the features it has, and whether a chapter begins with it."""

    features: Sequence[Sequence[str]]
    begins: Sequence[bool]


def extract_features(one: AnnotatedEpisode) -> SegmentFeatures:
    """Features are `first word`, `opening word`, `before word` and `after_question`."""
    starts = {chapter.start for chapter in one.chapters}
    offsets = list(one.episode.segments.offsets)[1:]
    return SegmentFeatures([_features_at(one.episode.text, at) for at in offsets], [at in starts for at in offsets])


def _features_at(text: str, offset: int) -> list[str]:
    opening, before = words_around(text, offset)
    results = [f"first {word}" for word in opening[:1]]
    results += [f"opening {word}" for word in sorted(set(opening))]
    results += [f"before {word}" for word in sorted(set(before))]
    return [*results, _QUESTION_FEATURE] if is_after_question(text, offset) else results


def fit_cues(sets: Sequence[Sequence[SegmentFeatures]]) -> BoundaryCues:
    """The cues of several sets, each of which counts as much."""
    names = _common_features(sets)
    alone = [_fit_weights([some], names, 0.03) for some in sets]
    together = _fit_weights(sets, names, 0.03)
    kept = [
        name
        for i, name in enumerate(names)
        if all(weights[i] * together[i] > 0 for weights in alone) and abs(together[i]) >= _MIN_WEIGHT
    ]
    results: dict[str, dict[str, float]] = {"first": {}, "opening": {}, "before": {}}
    question = 0.0
    for name, weight in zip(kept, _fit_weights(sets, kept, 0.1), strict=True):
        place, _, word = name.partition(" ")
        if name == _QUESTION_FEATURE:
            question = round(float(weight), 2)
        elif abs(weight) >= _MIN_WEIGHT:
            results[place][word] = round(float(weight), 2)
    return BoundaryCues(**results, after_question=question)


def _common_features(sets: Sequence[Sequence[SegmentFeatures]]) -> list[str]:
    names: set[str] | None = None
    for some in sets:
        held = Counter(name for one in some for name in {name for row in one.features for name in row})
        often = {name for name, count in held.items() if count >= _MIN_EPISODE_SHARE * len(some)}
        names = often if names is None else names & often
    return sorted(names or ())


def _fit_weights(sets: Sequence[Sequence[SegmentFeatures]], names: Sequence[str], strength: float) -> FloatArray:
    """Of a logistic regression with squared weights against it, by Newton's method; as if a set had 500 beginnings."""
    place = {name: i + 1 for i, name in enumerate(names)}  # 0 is the constant
    rows: list[list[int]] = []
    truth: list[bool] = []
    counts: list[float] = []
    for some in sets:
        each = 500 / max(1, sum(sum(one.begins) for one in some))
        for one in some:
            rows += [[0, *(place[name] for name in row if name in place)] for row in one.features]
            truth += one.begins
            counts += [each] * len(one.begins)
    matrix = np.zeros((len(rows), len(names) + 1), np.float32)
    for i, row in enumerate(rows):
        matrix[i, row] = 1
    begins, count = np.array(truth, np.float32), np.array(counts, np.float32)
    weights = np.zeros(len(names) + 1, np.float32)
    against = np.full(len(names) + 1, 1 / strength, np.float32)
    against[0] = 0
    for _ in range(25):
        likely = 1 / (1 + np.exp(-(matrix @ weights)))
        slope = matrix.T @ (count * (begins - likely)) - against * weights
        bend = (matrix * (count * likely * (1 - likely))[:, None]).T @ matrix + np.diag(against)
        step = np.linalg.solve(bend.astype(np.float64), slope.astype(np.float64))
        weights += step.astype(np.float32)
        if np.abs(step).max() < 1e-4:
            break
    return weights[1:].astype(np.float64)


def area_under_curve(cues: BoundaryCues, episodes: Sequence[AnnotatedEpisode]) -> float:
    """How likely a segment that begins a chapter weighs more than one that does not (area under the curve)."""
    scores: list[FloatArray] = []
    truth: list[bool] = []
    for one in episodes:
        starts = {chapter.start for chapter in one.chapters}
        offsets = list(one.episode.segments.offsets)[1:]
        scores.append(cues.of(one.episode.text, offsets))
        truth += [at in starts for at in offsets]
    weights, begins = np.concatenate(scores), np.array(truth)
    values, places, counts = np.unique(weights, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    ranks = (below + (counts + 1) / 2)[places] if len(values) else weights
    many = int(begins.sum())
    return float((ranks[begins].sum() - many * (many + 1) / 2) / (many * (len(begins) - many)))


def measure_cues(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Fits on the tuning half, and says what that is worth on the held-out one."""
    sets = {name: list(read_episodes(arguments.data / "chapters" / f"{name}.jsonl.gz")) for name in EPISODE_SETS}
    tuning = {name: [one for one in some if not one.held_out] for name, some in sets.items()}
    cues = fit_cues([[extract_features(one) for one in some] for some in tuning.values()])
    figures = {
        "words": {place: len(getattr(cues, place)) for place in ("first", "opening", "before")},
        "ranked_right": {
            name: {
                "tuning": round(area_under_curve(cues, tuning[name]), 4),
                "held_out": round(area_under_curve(cues, [one for one in some if one.held_out]), 4),
            }
            for name, some in sets.items()
        },
    }
    print(json.dumps(figures, indent=1))
    if arguments.write:
        sorted_ = {place: dict(sorted(getattr(cues, place).items())) for place in ("first", "opening", "before")}
        written = {**sorted_, "after_question": cues.after_question}
        arguments.write.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return figures


def chapter_cues(argv: list[str] | None = None) -> None:
    """Fit the cue words of chapter boundaries and measure how well they rank segments."""
    parser = make_parser("chapter_cues", chapter_cues.__doc__)
    parser.add_argument("data", type=Path, help="the folder that holds chapters/syntax_fm.jsonl.gz and its neighbour")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the cues there")
    run_benchmark("chapter_cues", parser, measure_cues, argv)
