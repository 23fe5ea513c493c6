"""The engine `tiling`: blocks, their sparse vectors, cohesion and cues.

Cuts a transcript into blocks of about as many words; each begins with a segment wherever that is possible.

Blocks as points: near one another where they say the same, by the pieces that tell the blocks of a talk apart.

How chapters begin: words with which a speaker turns to something else, and those with which one goes on.

`cues.json` holds weights of English words, fitted by `python -m benchmarks.chapter_cues`. Talk in other languages has
almost none of them, and is divided by cohesion alone.

Divides points in a row into runs of like ones, as many as pay for themselves.
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

# A run of letters this long counts as several words: languages that put no spaces between words, and noise.
_LETTERS_PER_WORD = 6
_SENTENCE_END = re.compile(r"[.!?…؟।](?=\s)\s*|[。！？]\s*|\n\s*")


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Characters `start` to `end` (exclusive). `opens`: a segment begins there, so a chapter may."""

    start: int
    end: int
    opens: bool


def split_into_blocks(text: str, segments: Segments, words: int) -> list[TextBlock]:
    """Blocks that cover the text in order. Takes time linear in the text; an empty text has none.

    Segments are put together while they have at most a quarter too many words; one that has more is cut at the ends of
    its sentences, of its words, or anywhere.
    """
    found: list[TextBlock] = []
    begun, held = 0, 0  # where the block in the making begins, and its words
    most = words * 5 // 4
    for start, end in _iter_spans(text, segments):
        size = count_words(text, start, end)
        if begun < start and held + size > most:
            found.append(TextBlock(begun, start, True))
            begun, held = start, 0
        if size > most:
            cuts = [start, *_cut_positions(text, start, end, size, words), end]
            found += [TextBlock(a, b, a == start) for a, b in itertools.pairwise(cuts)]
            begun, held = end, 0
        else:
            held += size
    if begun < len(text):
        if held or not found:
            found.append(TextBlock(begun, len(text), True))
        else:  # white space after the last word
            found[-1] = TextBlock(found[-1].start, len(text), found[-1].opens)
    return found


def count_words(text: str, start: int, end: int) -> int:
    """Words of a stretch; letters that nothing separates count as words of six."""
    part = text[start:end]
    return max(len(part.split()), len(part) // (2 * _LETTERS_PER_WORD))


def _iter_spans(text: str, segments: Segments) -> Iterator[tuple[int, int]]:
    offsets = list(segments.offsets) or [0]
    for start, end in zip(offsets, [*offsets[1:], len(text)], strict=True):
        if start < end:
            yield start, end


def _cut_positions(text: str, start: int, end: int, size: int, words: int) -> list[int]:
    """Where a long stretch is cut: into even parts, at the nearest end of a sentence, or else of a word."""
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


BlockPoints = npt.NDArray[np.float32]

# Chosen on the tuning half of both sets (docs/decisions/0194-chapters-by-tiling.md).
DIMENSIONS = 12
SMOOTHING = 0.7  # standard deviation in blocks
MAX_PIECE_SHARE = 0.5  # a piece in more of the blocks tells none from another
# The pieces that vary most: three hours of talk have about as many, and a matrix of 3,000 blocks takes 49 MB.
MAX_PIECES = 4096
NEIGHBOURHOOD_BLOCKS = 12  # blocks on each side that are held against one another, near 500 words
_SMOOTHING_BLOCKS = 3
_ITERATIONS = 12
# What another choice would make other chapters of.
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


def embed_blocks(vectors: Sequence[SparseVector]) -> BlockPoints:
    """One unit vector a block, of few dimensions: the main components of their weighted, smoothed pieces."""
    matrix = weight_by_rarity(vectors)
    if not matrix.shape[1]:
        return np.zeros((len(vectors), 1), np.float32)
    _smooth_rows(matrix)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), _EPSILON)
    matrix -= matrix.mean(axis=0)
    found = _principal_components(matrix)
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), _EPSILON)
    return found


def cohesion_scores(found: BlockPoints) -> npt.NDArray[np.float64]:
    """For each block how like the blocks before it are to it and those that follow: a cosine, -1 to 1; the first has 1.

    A run is held together by its middle, a turn is seen from near: each finds what the other misses.
    """
    count = len(found)
    sums = np.vstack([np.zeros((1, found.shape[1])), np.cumsum(found, axis=0, dtype=np.float64)])
    at = np.arange(count)
    before, after = (
        sums[at] - sums[np.maximum(at - NEIGHBOURHOOD_BLOCKS, 0)],
        sums[np.minimum(at + NEIGHBOURHOOD_BLOCKS, count)] - sums[at],
    )
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosines: npt.NDArray[np.float64] = (before * after).sum(axis=1) / np.maximum(norms, _EPSILON)
    cosines[:1] = 1.0
    return cosines


def weight_by_rarity(vectors: Sequence[SparseVector]) -> npt.NDArray[np.float32]:
    """Blocks by pieces: log(1 + weight) times the rarity of the piece among the blocks of this talk."""
    counts = np.array([len(vector) for vector in vectors])
    rows = np.repeat(np.arange(len(vectors)), counts)
    ids = np.concatenate([vector.ids for vector in vectors]) if len(vectors) else np.empty(0, np.int32)
    pieces, columns = np.unique(ids, return_inverse=True)
    blocks_with = np.bincount(columns, minlength=len(pieces))
    telling = (blocks_with >= 2) & (blocks_with <= max(MAX_PIECE_SHARE * len(vectors), 2))
    rarity = np.log(len(vectors) / np.maximum(blocks_with, 1)).astype(np.float32) * telling
    values = np.log1p(np.concatenate([vector.weights for vector in vectors])) if len(vectors) else np.empty(0)
    values = values * rarity[columns]
    mass = np.bincount(columns, weights=values**2, minlength=len(pieces))
    kept = np.sort(np.argsort(-mass, kind="stable")[:MAX_PIECES])
    kept = kept[mass[kept] > 0]
    place = np.full(len(pieces), -1)
    place[kept] = np.arange(len(kept))
    here = place[columns] >= 0
    matrix = np.zeros((len(vectors), len(kept)), np.float32)
    matrix[rows[here], place[columns[here]]] = values[here]
    return matrix


def _smooth_rows(matrix: npt.NDArray[np.float32]) -> None:
    """In place and some columns at a time, so that it takes little memory beside the matrix."""
    kernel = np.exp(-0.5 * (np.arange(-_SMOOTHING_BLOCKS, _SMOOTHING_BLOCKS + 1) / SMOOTHING) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    height = len(matrix)
    for first in range(0, matrix.shape[1], 256):
        padded = np.pad(matrix[:, first : first + 256], ((_SMOOTHING_BLOCKS, _SMOOTHING_BLOCKS), (0, 0)), mode="edge")
        matrix[:, first : first + 256] = sum(
            kernel[i] * padded[i : i + height] for i in range(2 * _SMOOTHING_BLOCKS + 1)
        )


def _principal_components(matrix: npt.NDArray[np.float32]) -> BlockPoints:
    """The rows by their main components, by subspace iteration: a whole decomposition of 10 hours takes minutes."""
    wanted = min(DIMENSIONS, *matrix.shape)
    width = min(2 * DIMENSIONS, *matrix.shape)
    basis = np.random.default_rng(0).standard_normal((matrix.shape[1], width)).astype(np.float32)
    for _ in range(_ITERATIONS):
        basis, _ = np.linalg.qr(matrix.T @ (matrix @ basis))
    left, scale, _ = np.linalg.svd(matrix @ basis, full_matrices=False)
    return np.ascontiguousarray(left[:, :wanted] * scale[:wanted], dtype=np.float32)


_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
# Words after the beginning of a segment and before it, and the characters in which they are looked for.
_OPENING, _BEFORE = 12, 8
_AFTER_REACH, _BEFORE_REACH = 120, 80
_QUESTIONS = "?？؟"


@dataclass(frozen=True, slots=True)
class BoundaryCues:
    """Weights of the first word, of each distinct word among the first twelve and among the eight before; and of a
    question just before, which is answered first."""

    first: Mapping[str, float]
    opening: Mapping[str, float]
    before: Mapping[str, float]
    after_question: float

    def at(self, text: str, offset: int) -> float:
        """How much speaks for a chapter that begins with the character at `offset`."""
        opening, before = words_around(text, offset)
        score = self.first.get(opening[0], 0.0) if opening else 0.0
        score += sum(self.opening.get(word, 0.0) for word in set(opening))
        score += sum(self.before.get(word, 0.0) for word in set(before))
        return score + self.after_question * is_after_question(text, offset)

    def of(self, text: str, offsets: Sequence[int]) -> npt.NDArray[np.float64]:
        """`at` of each offset."""
        return np.fromiter((self.at(text, offset) for offset in offsets), np.float64, len(offsets))


def words_around(text: str, offset: int) -> tuple[list[str], list[str]]:
    """The words that follow, and those that go before."""
    after = _cue_words(text[offset : offset + _AFTER_REACH])[:_OPENING]
    return after, _cue_words(text[max(0, offset - _BEFORE_REACH) : offset])[-_BEFORE:]


def is_after_question(text: str, offset: int) -> bool:
    """Whether what is said just before is a question."""
    return text[max(0, offset - _BEFORE_REACH) : offset].rstrip()[-1:] in tuple(_QUESTIONS)


def _cue_words(stretch: str) -> list[str]:
    return _WORD.findall(stretch.lower().replace("’", "'"))


@cache
def load_shipped_cues() -> BoundaryCues:
    """Those of `cues.json`."""
    return BoundaryCues(**json.loads((Path(__file__).parent / "cues.json").read_text(encoding="utf-8")))


def divide_points(
    points: npt.NDArray[np.float32], sizes: npt.NDArray[np.float64], price: npt.NDArray[np.float64]
) -> list[int]:
    """Where runs begin, ascending, without the first one at 0; the best division there is, by dynamic programming.

    What a run costs: how far its points, weighted by `sizes`, are from their mean, as a share of what all of them
    together would cost. A run that begins at i costs `price[i]` more; infinite where none may begin. Takes time that
    grows with the square of the number of points, and little memory.
    """
    count = len(points)
    if count < 2:
        return []
    sums = np.vstack([np.zeros((1, points.shape[1])), np.cumsum(points * sizes[:, None], axis=0)])
    squares = np.concatenate([[0.0], np.cumsum((points.astype(np.float64) ** 2).sum(axis=1) * sizes)])
    weights = np.concatenate([[0.0], np.cumsum(sizes)])
    lengths = (sums**2).sum(axis=1)
    whole = squares[-1] - (sums[-1] ** 2).sum() / weights[-1]
    if whole <= 0:
        return []
    best = np.full(count + 1, np.inf)
    # What has been paid where a run begins.
    paid = np.full(count + 1, np.inf)
    paid[0] = best[0] = 0.0
    came = np.zeros(count + 1, np.intp)
    for end in range(1, count + 1):
        # how far the sum of a run is from 0, squared: |a - b|² by its three products, which is thrice as fast
        apart = (lengths[:end] + lengths[end] - 2 * (sums[:end] @ sums[end])) / (weights[end] - weights[:end])
        costs = paid[:end] + (squares[end] - squares[:end] - apart) / whole
        came[end] = np.argmin(costs)
        best[end] = costs[came[end]]
        if end < count:
            paid[end] = best[end] + price[end]
    starts: list[int] = []
    at = int(came[count])
    while at > 0:
        starts.append(at)
        at = int(came[at])
    return starts[::-1]


# Chosen on the tuning half of both sets (docs/decisions/0194-chapters-by-tiling.md).
BLOCK_WORDS = 40  # of a block
BOUNDARY_PENALTY = 0.055  # of a chapter, as a share of what the whole talk as one would cost
COHESION_WEIGHT = (
    0.02  # how much more it is where what follows is like what went before, and less where it is the contrary
)
CUE_WEIGHT = 0.01  # how much of it a cue of weight 1 pays
# Words from which on chapters get more, not longer: with the price of a share ten hours would have no more of them than
# two. As long as all but the longest talks that it was chosen on.
LONG_TALK_WORDS = 15_000
# Longer talk has longer blocks: 12 hours have this many, and what grows with the square of it stays small.
MAX_BLOCKS = 3000
# Blocks encoded at once. What is held for a block is its vector; what the model needs, for these alone.
_BATCH_BLOCKS = 16
# Changes when the same episode would get other chapters though no constant did.
_VERSION = 1
_NO_SEGMENT = -1


class TextTilingEngine:
    """Chapters begin where neighbouring blocks say different things, at the segment that sounds most like a beginning.

    It proposes no titles: those come of the words of the chapter, see `models.chapters.titles`.
    """

    name = "tiling"

    def __init__(
        self,
        encoder: Encoder,
        *,
        price: float = BOUNDARY_PENALTY,
        cue: float = CUE_WEIGHT,
        cues: BoundaryCues | None = None,
    ) -> None:
        self._encoder, self._price, self._cue = encoder, price, cue
        self._cues = load_shipped_cues() if cues is None else cues

    @property
    def fingerprint(self) -> str:
        chosen = (
            BLOCK_WORDS,
            MAX_BLOCKS,
            LONG_TALK_WORDS,
            COHESION_WEIGHT,
            *COHESION_PARAMETERS,
            self._price,
            self._cue,
        )
        of = f"{_VERSION} {self._encoder.fingerprint} {chosen} {self._cues!r}"
        return hashlib.sha256(of.encode()).hexdigest()[:16]

    def propose(self, episode: Episode, seconds: float | None = None) -> Sequence[ProposedChapter]:
        """See `ChapterEngine`."""
        if not episode.text.strip():
            return []
        late = None if seconds is None else time.monotonic() + seconds
        cut = cut_episode_blocks(episode)
        vectors = encode_blocks(self._encoder, episode.text, cut, late)
        return [ProposedChapter(0), *(ProposedChapter(start) for start in self.boundaries(episode, cut, vectors))]

    def boundaries(self, episode: Episode, cut: Sequence[TextBlock], vectors: Sequence[SparseVector]) -> list[int]:
        """Where chapters begin after the first one."""
        places, weights = _likely_starts(episode, cut, self._cues)
        sizes = np.array([count_words(episode.text, block.start, block.end) for block in cut], dtype=np.float64) + 1
        near = embed_blocks(vectors)
        price = self._price + COHESION_WEIGHT * cohesion_scores(near) - self._cue * weights
        price *= min(1.0, LONG_TALK_WORDS / sizes.sum())
        price[places == _NO_SEGMENT] = np.inf
        return [int(places[at]) for at in divide_points(near, sizes, price)]


def cut_episode_blocks(episode: Episode) -> list[TextBlock]:
    """The blocks of an episode."""
    words = max(BLOCK_WORDS, count_words(episode.text, 0, len(episode.text)) // MAX_BLOCKS)
    return split_into_blocks(episode.text, episode.segments, words)


def encode_blocks(
    encoder: Encoder, text: str, cut: Sequence[TextBlock], late: float | None = None
) -> list[SparseVector]:
    """One vector a block. Raises Overloaded (`chapters_late`) at the monotonic time `late`."""
    vectors: list[SparseVector] = []
    for first in range(0, len(cut), _BATCH_BLOCKS):
        if late is not None and time.monotonic() > late:
            raise Overloaded("chapters_late", "The chapters of this talk were not ready in time.")
        some = [encoder.windows(text[block.start : block.end]) for block in cut[first : first + _BATCH_BLOCKS]]
        made = iter(encoder.encode([window for windows in some for window in windows]))
        vectors += [merge_max([next(made) for _ in windows]) for windows in some]
    return vectors


def _likely_starts(
    episode: Episode, cut: Sequence[TextBlock], cues: BoundaryCues
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """For each block where the segment near its beginning that sounds most like one begins, and how much it does.

    Near is from the middle of the block before to its own: a vector says what a block is about, not where in it.
    """
    offsets = np.asarray(episode.segments.offsets, dtype=np.int64)
    scores = cues.of(episode.text, episode.segments.offsets)
    middles = np.array([(block.start + block.end) / 2 for block in cut])
    firsts = np.maximum(np.searchsorted(offsets, middles), 1)
    places, weights = np.full(len(cut), _NO_SEGMENT), np.zeros(len(cut))
    for i in range(1, len(cut)):
        low, high = int(firsts[i - 1]), int(firsts[i])
        if low < high:
            at = low + int(np.argmax(scores[low:high]))
            places[i], weights[i] = offsets[at], scores[at]
    return places, weights
