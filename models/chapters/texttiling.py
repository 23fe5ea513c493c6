"""The chapter engine `tiling`: TextTiling on sparse vectors (docs/decisions/0194).

The text is cut into blocks of about 40 words. Blocks are encoded, embedded in 12 dimensions, and divided into runs by
dynamic programming (`divide_points`): each boundary has a penalty, which is lower where cohesion is low and where a
segment sounds like the beginning of a chapter (`BoundaryCues`). The weights of cues in `cues.json` are fitted on
English talk by `python -m benchmarks chapter_cues`; talk in other languages has almost no cues and is divided by
cohesion alone.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.chapters.engine import Episode, ProposedChapter
from models.encoder import Encoder
from services.encoders.vectors import SparseVector, merge_max
from services.errors import Overloaded
from services.talk.model import Segments

BlockPoints = npt.NDArray[np.float32]

# Boundaries. Chosen on the tuning half of both sets (docs/decisions/0194).
BLOCK_WORDS = 40
BOUNDARY_PENALTY = 0.055  # as a share of the cost of the talk as a single chapter
COHESION_WEIGHT = 0.02  # part of the penalty that is proportional to cohesion
CUE_WEIGHT = 0.01  # reduction of the penalty by a cue of weight 1
# From this length on the penalty falls with the length, so that longer talks have more chapters instead of longer
# chapters. All but the longest talks of the tuning sets are shorter.
LONG_TALK_WORDS = 15_000
# Longer talks have longer blocks, because the division is quadratic. 12 hours of talk have 3,000 blocks.
MAX_BLOCKS = 3000
# Blocks of one encoder call, which bounds the memory of their windows.
_BATCH_BLOCKS = 16
# Part of the fingerprint: changes when the code gives other chapters with the same constants.
_VERSION = 1
_NO_SEGMENT = -1

# Cohesion. Chosen on the tuning half of both sets (docs/decisions/0194).
DIMENSIONS = 12
SMOOTHING = 0.7  # standard deviation in blocks
MAX_PIECE_SHARE = 0.5  # pieces in more of the blocks do not distinguish blocks
# The pieces that vary most. Three hours of talk have about as many, and a matrix of 3,000 blocks takes 49 MB.
MAX_PIECES = 4096
NEIGHBOURHOOD_BLOCKS = 12  # compared blocks on each side, about 500 words
_SMOOTHING_BLOCKS = 3
_ITERATIONS = 12
# These are part of the fingerprint, because other values give other chapters.
COHESION_PARAMETERS = (
    DIMENSIONS,
    SMOOTHING,
    MAX_PIECE_SHARE,
    MAX_PIECES,
    NEIGHBOURHOOD_BLOCKS,
    _SMOOTHING_BLOCKS,
    _ITERATIONS,
)
_EPSILON = 1e-9

# A span has at least a word for every 12 characters, twice this length: some scripts have no spaces between words.
_LETTERS_PER_WORD = 6
_SENTENCE_END = re.compile(r"[.!?…؟।](?=\s)\s*|[。！？]\s*|\n\s*")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
# Words after and before the start of a segment, and the characters in which they are searched.
_OPENING, _BEFORE = 12, 8
_AFTER_REACH, _BEFORE_REACH = 120, 80
_QUESTIONS = "?？؟"


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Characters `start` to `end` (exclusive). `opens`: a segment begins at `start`, so a chapter may begin there."""

    start: int
    end: int
    opens: bool


@dataclass(frozen=True, slots=True)
class BoundaryCues:
    """Weights of the cues for a chapter's start: its first word, each distinct word of its first twelve and of the
    eight words before, and a question just before. A question is usually answered in the same chapter.
    """

    first: Mapping[str, float]
    opening: Mapping[str, float]
    before: Mapping[str, float]
    after_question: float

    def at(self, text: str, offset: int) -> float:
        """Score a chapter that would begin at the character `offset`."""
        opening, before = words_around(text, offset)
        score = self.first.get(opening[0], 0.0) if opening else 0.0
        score += sum(self.opening.get(word, 0.0) for word in set(opening))
        score += sum(self.before.get(word, 0.0) for word in set(before))
        return score + self.after_question * is_after_question(text, offset)

    def of(self, text: str, offsets: Sequence[int]) -> npt.NDArray[np.float64]:
        """Score each offset."""
        return np.fromiter((self.at(text, offset) for offset in offsets), np.float64, len(offsets))


class TextTilingEngine:
    """The engine `tiling`, which proposes no titles; see `models.chapters.titles`.

    A chapter begins where neighbouring blocks differ, at the nearby segment that sounds most like a beginning.
    """

    name = "tiling"
    trained_titles = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        penalty: float = BOUNDARY_PENALTY,
        cue_weight: float = CUE_WEIGHT,
        cues: BoundaryCues | None = None,
    ) -> None:
        self._encoder, self._penalty, self._cue_weight = encoder, penalty, cue_weight
        self._cues = load_shipped_cues() if cues is None else cues

    @property
    def fingerprint(self) -> str:
        constants = (BLOCK_WORDS, MAX_BLOCKS, LONG_TALK_WORDS, COHESION_WEIGHT, *COHESION_PARAMETERS)
        parameters = (*constants, self._penalty, self._cue_weight)
        content = f"{_VERSION} {self._encoder.fingerprint} {parameters} {self._cues!r}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def propose(self, episode: Episode, seconds: float | None = None) -> Sequence[ProposedChapter]:
        """Propose chapters without titles, see `ChapterEngine`."""
        if not episode.text.strip():
            return []
        deadline = None if seconds is None else time.monotonic() + seconds
        blocks = cut_episode_blocks(episode)
        vectors = encode_blocks(self._encoder, episode.text, blocks, deadline)
        return [ProposedChapter(0), *(ProposedChapter(start) for start in self.boundaries(episode, blocks, vectors))]

    def boundaries(self, episode: Episode, blocks: Sequence[TextBlock], vectors: Sequence[SparseVector]) -> list[int]:
        """Return the starts of the chapters after the first one."""
        starts, scores = _likely_starts(episode, blocks, self._cues)
        sizes = np.array([count_words(episode.text, block.start, block.end) for block in blocks], dtype=np.float64) + 1
        points = embed_blocks(vectors)
        penalties = self._penalty + COHESION_WEIGHT * cohesion_scores(points) - self._cue_weight * scores
        penalties *= min(1.0, LONG_TALK_WORDS / sizes.sum())
        penalties[starts == _NO_SEGMENT] = np.inf
        return [int(starts[block]) for block in divide_points(points, sizes, penalties)]


def _likely_starts(
    episode: Episode, blocks: Sequence[TextBlock], cues: BoundaryCues
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """For each block, find the start of the nearby segment with the best cues, and its score.

    Segments between the middles of the previous block and this one are nearby: a vector does not show where in a block
    the topic changes.
    """
    offsets = np.asarray(episode.segments.offsets, dtype=np.int64)
    scores = cues.of(episode.text, episode.segments.offsets)
    middles = np.array([(block.start + block.end) / 2 for block in blocks])
    firsts = np.maximum(np.searchsorted(offsets, middles), 1)
    starts, best = np.full(len(blocks), _NO_SEGMENT), np.zeros(len(blocks))
    for i in range(1, len(blocks)):
        low, high = int(firsts[i - 1]), int(firsts[i])
        if low < high:
            segment = low + int(np.argmax(scores[low:high]))
            starts[i], best[i] = offsets[segment], scores[segment]
    return starts, best


def cut_episode_blocks(episode: Episode) -> list[TextBlock]:
    """Cut an episode into blocks."""
    words = max(BLOCK_WORDS, count_words(episode.text, 0, len(episode.text)) // MAX_BLOCKS)
    return split_into_blocks(episode.text, episode.segments, words)


def split_into_blocks(text: str, segments: Segments, words: int) -> list[TextBlock]:
    """Cut a text into blocks of about `words` words that cover it in order. Takes time linear in the text.

    Segments are joined up to 5/4 of `words`. A longer segment is cut at ends of sentences, else of words, else
    anywhere. An empty text has no block.
    """
    blocks: list[TextBlock] = []
    block_start, block_words = 0, 0
    limit = words * 5 // 4
    for start, end in _iter_spans(text, segments):
        size = count_words(text, start, end)
        if block_start < start and block_words + size > limit:
            blocks.append(TextBlock(block_start, start, True))
            block_start, block_words = start, 0
        if size > limit:
            cuts = [start, *_cut_positions(text, start, end, size, words), end]
            blocks += [TextBlock(a, b, a == start) for a, b in itertools.pairwise(cuts)]
            block_start, block_words = end, 0
        else:
            block_words += size
    if block_start < len(text):
        if block_words or not blocks:
            blocks.append(TextBlock(block_start, len(text), True))
        else:  # white space after the last word
            blocks[-1] = TextBlock(blocks[-1].start, len(text), blocks[-1].opens)
    return blocks


def count_words(text: str, start: int, end: int) -> int:
    """Count the words of a span; long runs of letters count as several words."""
    span = text[start:end]
    return max(len(span.split()), len(span) // (2 * _LETTERS_PER_WORD))


def _iter_spans(text: str, segments: Segments) -> Iterator[tuple[int, int]]:
    offsets = list(segments.offsets) or [0]
    for start, end in zip(offsets, [*offsets[1:], len(text)], strict=True):
        if start < end:
            yield start, end


def _cut_positions(text: str, start: int, end: int, size: int, words: int) -> list[int]:
    """Choose cuts of a long span: even parts, at the nearest end of a sentence, else of a word."""
    parts = -(-size // words)
    step = (end - start) / parts
    cuts: list[int] = []
    before = start
    for number in range(1, parts):
        aim = start + round(number * step)
        reach = max(1, int(step / 3))
        low, high = max(before + 1, aim - reach), min(end - 1, aim + reach)
        if low >= high:
            continue
        at = _nearest_position(aim, [match.end() for match in _SENTENCE_END.finditer(text, low, high)])
        if at is None:
            at = _nearest_position(aim, [match.end() for match in re.finditer(r"\s+", text[low:high])], low)
        cuts.append(aim if at is None else at)
        before = cuts[-1]
    return cuts


def _nearest_position(aim: int, places: list[int], shift: int = 0) -> int | None:
    return min((place + shift for place in places), key=lambda place: abs(place - aim), default=None)


def encode_blocks(
    encoder: Encoder, text: str, blocks: Sequence[TextBlock], deadline: float | None = None
) -> list[SparseVector]:
    """Encode blocks, one vector each. Raises Overloaded (`chapters_late`) after the monotonic time `deadline`."""
    vectors: list[SparseVector] = []
    for first in range(0, len(blocks), _BATCH_BLOCKS):
        if deadline is not None and time.monotonic() > deadline:
            raise Overloaded("chapters_late", "The chapters of this talk were not ready in time.")
        batch = [encoder.windows(text[block.start : block.end]) for block in blocks[first : first + _BATCH_BLOCKS]]
        encoded = iter(encoder.encode([window for windows in batch for window in windows]))
        vectors += [merge_max([next(encoded) for _ in windows]) for windows in batch]
    return vectors


def embed_blocks(vectors: Sequence[SparseVector]) -> BlockPoints:
    """Embed each block as a unit vector: the principal components of its weighted, smoothed pieces."""
    matrix = weight_by_rarity(vectors)
    if not matrix.shape[1]:
        return np.zeros((len(vectors), 1), np.float32)
    _smooth_rows(matrix)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), _EPSILON)
    matrix -= matrix.mean(axis=0)
    points = _principal_components(matrix)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), _EPSILON)
    return points


def weight_by_rarity(vectors: Sequence[SparseVector]) -> npt.NDArray[np.float32]:
    """Make the matrix of blocks by pieces: log(1 + weight) x rarity of the piece among the blocks of this talk."""
    counts = np.array([len(vector) for vector in vectors])
    rows = np.repeat(np.arange(len(vectors)), counts)
    ids = np.concatenate([vector.ids for vector in vectors]) if len(vectors) else np.empty(0, np.int32)
    pieces, columns = np.unique(ids, return_inverse=True)
    blocks_with = np.bincount(columns, minlength=len(pieces))
    distinctive = (blocks_with >= 2) & (blocks_with <= max(MAX_PIECE_SHARE * len(vectors), 2))
    rarity = np.log(len(vectors) / np.maximum(blocks_with, 1)).astype(np.float32) * distinctive
    values = np.log1p(np.concatenate([vector.weights for vector in vectors])) if len(vectors) else np.empty(0)
    values = values * rarity[columns]
    mass = np.bincount(columns, weights=values**2, minlength=len(pieces))
    kept = np.sort(np.argsort(-mass, kind="stable")[:MAX_PIECES])
    kept = kept[mass[kept] > 0]
    column_of = np.full(len(pieces), -1)
    column_of[kept] = np.arange(len(kept))
    used = column_of[columns] >= 0
    matrix = np.zeros((len(vectors), len(kept)), np.float32)
    matrix[rows[used], column_of[columns[used]]] = values[used]
    return matrix


def _smooth_rows(matrix: npt.NDArray[np.float32]) -> None:
    """Smooth in place, 256 columns at a time to save memory."""
    kernel = np.exp(-0.5 * (np.arange(-_SMOOTHING_BLOCKS, _SMOOTHING_BLOCKS + 1) / SMOOTHING) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    height = len(matrix)
    for first in range(0, matrix.shape[1], 256):
        padded = np.pad(matrix[:, first : first + 256], ((_SMOOTHING_BLOCKS, _SMOOTHING_BLOCKS), (0, 0)), mode="edge")
        matrix[:, first : first + 256] = sum(
            kernel[i] * padded[i : i + height] for i in range(2 * _SMOOTHING_BLOCKS + 1)
        )


def _principal_components(matrix: npt.NDArray[np.float32]) -> BlockPoints:
    """Project the rows by subspace iteration; a full decomposition of 10 hours of talk takes minutes."""
    dimensions = min(DIMENSIONS, *matrix.shape)
    width = min(2 * DIMENSIONS, *matrix.shape)
    basis = np.random.default_rng(0).standard_normal((matrix.shape[1], width)).astype(np.float32)
    for _ in range(_ITERATIONS):
        basis, _ = np.linalg.qr(matrix.T @ (matrix @ basis))
    left, scale, _ = np.linalg.svd(matrix @ basis, full_matrices=False)
    return np.ascontiguousarray(left[:, :dimensions] * scale[:dimensions], dtype=np.float32)


def cohesion_scores(points: BlockPoints) -> npt.NDArray[np.float64]:
    """Compute for each block the cosine of the blocks before it and those from it on, -1 to 1; the first has 1.

    The score is local. It complements the division, which compares each block with the mean of its whole run.
    """
    count = len(points)
    sums = np.vstack([np.zeros((1, points.shape[1])), np.cumsum(points, axis=0, dtype=np.float64)])
    at = np.arange(count)
    before = sums[at] - sums[np.maximum(at - NEIGHBOURHOOD_BLOCKS, 0)]
    after = sums[np.minimum(at + NEIGHBOURHOOD_BLOCKS, count)] - sums[at]
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosines: npt.NDArray[np.float64] = (before * after).sum(axis=1) / np.maximum(norms, _EPSILON)
    cosines[:1] = 1.0
    return cosines


def divide_points(
    points: npt.NDArray[np.float32], sizes: npt.NDArray[np.float64], penalties: npt.NDArray[np.float64]
) -> list[int]:
    """Return the starts of runs in the best division, ascending, without the first at 0.

    A run costs the squared distances of its points, weighted by `sizes`, from their mean, as a share of the cost of a
    single run of all points; plus `penalties[i]` when it begins at i (infinite: no run may begin there). The dynamic
    programme takes time quadratic in the number of points, and linear memory.
    """
    count = len(points)
    if count < 2:
        return []
    sums = np.vstack([np.zeros((1, points.shape[1])), np.cumsum(points * sizes[:, None], axis=0)])
    squares = np.concatenate([[0.0], np.cumsum((points.astype(np.float64) ** 2).sum(axis=1) * sizes)])
    weights = np.concatenate([[0.0], np.cumsum(sizes)])
    lengths = (sums**2).sum(axis=1)
    single_run = squares[-1] - (sums[-1] ** 2).sum() / weights[-1]
    if single_run <= 0:
        return []
    # Costs up to a start, with its penalty.
    cost_before = np.full(count + 1, np.inf)
    cost_before[0] = 0.0
    last_start = np.zeros(count + 1, np.intp)
    for end in range(1, count + 1):
        # The squared length of a run's sum. The three products of |a - b|² are three times as fast as the difference.
        means = (lengths[:end] + lengths[end] - 2 * (sums[:end] @ sums[end])) / (weights[end] - weights[:end])
        costs = cost_before[:end] + (squares[end] - squares[:end] - means) / single_run
        last_start[end] = np.argmin(costs)
        if end < count:
            cost_before[end] = costs[last_start[end]] + penalties[end]
    starts: list[int] = []
    start = int(last_start[count])
    while start > 0:
        starts.append(start)
        start = int(last_start[start])
    return starts[::-1]


@cache
def load_shipped_cues() -> BoundaryCues:
    """Load the weights of `cues.json`."""
    return BoundaryCues(**json.loads((Path(__file__).parent / "cues.json").read_text(encoding="utf-8")))


def words_around(text: str, offset: int) -> tuple[list[str], list[str]]:
    """Return the words after an offset and the words before it."""
    after = _cue_words(text[offset : offset + _AFTER_REACH])[:_OPENING]
    return after, _cue_words(text[max(0, offset - _BEFORE_REACH) : offset])[-_BEFORE:]


def is_after_question(text: str, offset: int) -> bool:
    """Check whether the text before an offset ends with a question."""
    return text[max(0, offset - _BEFORE_REACH) : offset].rstrip()[-1:] in tuple(_QUESTIONS)


def _cue_words(span: str) -> list[str]:
    return _WORD.findall(span.lower().replace("’", "'"))
