"""How chapters begin: fits the words of `models/chapters/tiling/cues.json` to chapters that people made.

    python -m benchmarks.chapter_cues ../shared/data --json benchmarks/results/chapter-cues.json

A logistic regression says of each segment of the tuning half whether a chapter begins there, from the words around it.
Kept are words that are in a fifth of the episodes of each set and count in the same direction when each set is fitted
alone, so that none is there because of what a show is about.
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.record import command_line, run
from models.chapters.episodes import Chaptered, read_episodes
from models.chapters.tiling.cues import Cues, after_question, words_around

SETS = ("syntax_fm", "bitcoin_transcripts")
_EPISODES_WITH = 0.2
_LEAST = 0.1  # of a weight that is kept
_QUESTION = "after_question"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Beginnings:
    """Of each segment but the first: the features it has, and whether a chapter begins with it."""

    features: Sequence[Sequence[str]]
    begins: Sequence[bool]


def beginnings(one: Chaptered) -> Beginnings:
    """Features are `first word`, `opening word`, `before word` and `after_question`."""
    starts = {chapter.start for chapter in one.chapters}
    offsets = list(one.episode.segments.offsets)[1:]
    return Beginnings([_features(one.episode.text, at) for at in offsets], [at in starts for at in offsets])


def _features(text: str, offset: int) -> list[str]:
    opening, before = words_around(text, offset)
    found = [f"first {word}" for word in opening[:1]]
    found += [f"opening {word}" for word in sorted(set(opening))]
    found += [f"before {word}" for word in sorted(set(before))]
    return [*found, _QUESTION] if after_question(text, offset) else found


def fitted(sets: Sequence[Sequence[Beginnings]]) -> Cues:
    """The cues of several sets, each of which counts as much."""
    names = _common(sets)
    alone = [_weights([some], names, 0.03) for some in sets]
    together = _weights(sets, names, 0.03)
    kept = [
        name
        for i, name in enumerate(names)
        if all(weights[i] * together[i] > 0 for weights in alone) and abs(together[i]) >= _LEAST
    ]
    found: dict[str, dict[str, float]] = {"first": {}, "opening": {}, "before": {}}
    question = 0.0
    for name, weight in zip(kept, _weights(sets, kept, 0.1), strict=True):
        place, _, word = name.partition(" ")
        if name == _QUESTION:
            question = round(float(weight), 2)
        elif abs(weight) >= _LEAST:
            found[place][word] = round(float(weight), 2)
    return Cues(**found, after_question=question)


def _common(sets: Sequence[Sequence[Beginnings]]) -> list[str]:
    names: set[str] | None = None
    for some in sets:
        held = Counter(name for one in some for name in {name for row in one.features for name in row})
        often = {name for name, count in held.items() if count >= _EPISODES_WITH * len(some)}
        names = often if names is None else names & often
    return sorted(names or ())


def _weights(sets: Sequence[Sequence[Beginnings]], names: Sequence[str], strength: float) -> Floats:
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


def ranked_right(cues: Cues, episodes: Sequence[Chaptered]) -> float:
    """How likely a segment that begins a chapter weighs more than one that does not (area under the curve)."""
    scores: list[Floats] = []
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


def measure(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Fits on the tuning half, and says what that is worth on the held-out one."""
    sets = {name: list(read_episodes(arguments.data / "chapters" / f"{name}.jsonl.gz")) for name in SETS}
    tuning = {name: [one for one in some if not one.held_out] for name, some in sets.items()}
    cues = fitted([[beginnings(one) for one in some] for some in tuning.values()])
    figures = {
        "words": {place: len(getattr(cues, place)) for place in ("first", "opening", "before")},
        "ranked_right": {
            name: {
                "tuning": round(ranked_right(cues, tuning[name]), 4),
                "held_out": round(ranked_right(cues, [one for one in some if one.held_out]), 4),
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


def main(given: list[str] | None = None) -> None:
    parser = command_line("chapter_cues", __doc__ or "")
    parser.add_argument("data", type=Path, help="the folder that holds chapters/syntax_fm.jsonl.gz and its neighbour")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the cues there")
    run("chapter_cues", parser, measure, given)


if __name__ == "__main__":
    main()
