"""The engine `tiling`: blocks, their sparse vectors, cohesion and cues."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.chapters.engine import Episode, Proposed
from models.chapters.tiling import cohesion
from models.chapters.tiling.blocks import Block, blocks, length
from models.chapters.tiling.cohesion import alike, points
from models.chapters.tiling.cues import Cues, shipped
from models.chapters.tiling.division import divide
from models.encoder import Encoder
from services.errors import Overloaded
from services.vectors import SparseVector, merge_max

# Chosen on the tuning half of both sets (docs/decisions/0194-chapters-by-tiling.md).
WORDS = 40  # of a block
PRICE = 0.055  # of a chapter, as a share of what the whole talk as one would cost
TURN = 0.02  # how much more it is where what follows is like what went before, and less where it is the contrary
CUE = 0.01  # how much of it a cue of weight 1 pays
# Words from which on chapters get more, not longer: with the price of a share ten hours would have no more of them than
# two. As long as all but the longest talks that it was chosen on.
LONG = 15_000
# Longer talk has longer blocks: 12 hours have this many, and what grows with the square of it stays small.
MOST_BLOCKS = 3000
# Blocks encoded at once. What is held for a block is its vector; what the model needs, for these alone.
_RUN = 16
# Changes when the same episode would get other chapters though no constant did.
_VERSION = 1
_NOWHERE = -1


class Tiling:
    """Chapters begin where neighbouring blocks say different things, at the segment that sounds most like a beginning.

    It proposes no titles: those come of the words of the chapter, see `models.chapters.titles`.
    """

    name = "tiling"

    def __init__(self, encoder: Encoder, *, price: float = PRICE, cue: float = CUE, cues: Cues | None = None) -> None:
        self._encoder, self._price, self._cue = encoder, price, cue
        self._cues = shipped() if cues is None else cues

    @property
    def fingerprint(self) -> str:
        chosen = (WORDS, MOST_BLOCKS, LONG, TURN, *cohesion.CHOSEN, self._price, self._cue)
        of = f"{_VERSION} {self._encoder.fingerprint} {chosen} {self._cues!r}"
        return hashlib.sha256(of.encode()).hexdigest()[:16]

    def propose(self, episode: Episode, seconds: float | None = None) -> Sequence[Proposed]:
        """See `ChapterEngine`."""
        if not episode.text.strip():
            return []
        late = None if seconds is None else time.monotonic() + seconds
        cut = cut_blocks(episode)
        vectors = block_vectors(self._encoder, episode.text, cut, late)
        return [Proposed(0), *(Proposed(start) for start in self.boundaries(episode, cut, vectors))]

    def boundaries(self, episode: Episode, cut: Sequence[Block], vectors: Sequence[SparseVector]) -> list[int]:
        """Where chapters begin after the first one."""
        places, weights = _beginnings(episode, cut, self._cues)
        sizes = np.array([length(episode.text, block.start, block.end) for block in cut], dtype=np.float64) + 1
        near = points(vectors)
        price = self._price + TURN * alike(near) - self._cue * weights
        price *= min(1.0, LONG / sizes.sum())
        price[places == _NOWHERE] = np.inf
        return [int(places[at]) for at in divide(near, sizes, price)]


def cut_blocks(episode: Episode) -> list[Block]:
    """The blocks of an episode."""
    words = max(WORDS, length(episode.text, 0, len(episode.text)) // MOST_BLOCKS)
    return blocks(episode.text, episode.segments, words)


def block_vectors(encoder: Encoder, text: str, cut: Sequence[Block], late: float | None = None) -> list[SparseVector]:
    """One vector a block. Raises Overloaded (`chapters_late`) at the monotonic time `late`."""
    vectors: list[SparseVector] = []
    for first in range(0, len(cut), _RUN):
        if late is not None and time.monotonic() > late:
            raise Overloaded("chapters_late", "The chapters of this talk were not ready in time.")
        some = [encoder.windows(text[block.start : block.end]) for block in cut[first : first + _RUN]]
        made = iter(encoder.encode([window for windows in some for window in windows]))
        vectors += [merge_max([next(made) for _ in windows]) for windows in some]
    return vectors


def _beginnings(
    episode: Episode, cut: Sequence[Block], cues: Cues
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """For each block where the segment near its beginning that sounds most like one begins, and how much it does.

    Near is from the middle of the block before to its own: a vector says what a block is about, not where in it.
    """
    offsets = np.asarray(episode.segments.offsets, dtype=np.int64)
    scores = cues.of(episode.text, episode.segments.offsets)
    middles = np.array([(block.start + block.end) / 2 for block in cut])
    firsts = np.maximum(np.searchsorted(offsets, middles), 1)
    places, weights = np.full(len(cut), _NOWHERE), np.zeros(len(cut))
    for i in range(1, len(cut)):
        low, high = int(firsts[i - 1]), int(firsts[i])
        if low < high:
            at = low + int(np.argmax(scores[low:high]))
            places[i], weights[i] = offsets[at], scores[at]
    return places, weights
