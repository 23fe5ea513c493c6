"""Hard negatives: passages that a first search takes for an answer and that are none, as far as is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.training.masks import Positives
from models.training.pairs import PairSet, Rows, texts_fingerprint
from models.training.ranking import NONE, Candidates
from models.training.row_store import stored_rows
from models.training.vectors import TeacherVectors
from services.errors import InvalidInput

BLOCK = 1024
_DRAWS = 4  # at random, for each negative that the lists could not give
_COUNTS = ("mined", "random", "missing", "known", "too_good")


@dataclass(frozen=True, slots=True)
class MiningRule:
    """`count` negatives a pair, drawn by chance from ranks `skip` to `depth` of each source's list.

    The first ranks often hold answers that nobody linked, hence `skip`; for the same reason a candidate that the
    teacher scores above `ceiling` times the pair's own passage is no negative (None: no such rule).
    """

    count: int = 3
    depth: int = 50
    skip: int = 1
    ceiling: float | None = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.skip < self.depth or (self.ceiling is not None and not self.ceiling > 0):
            raise InvalidInput(
                "bad_mining", f"Mining takes a count of 1 or more, 0 <= skip < depth and a ceiling above 0: {self}."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Negatives:
    """`rows` int32 [links, count] of passages, -1 where a pair has fewer.

    `counts` says how many were mined, drawn at random from all passages because the lists gave too few, and missing
    altogether; and how many candidates were known answers or too good for a negative.
    """

    rows: Rows
    counts: dict[str, int]


def candidate_lists(
    source: Candidates,
    pairs: PairSet,
    depth: int,
    directory: Path,
    done: Callable[[int], object] = lambda queries: None,
) -> Rows:
    """Int32 [queries, depth]: the source's list for each query, -1 after its end; kept in `directory` block by block.

    Another source, depth, or other texts have another name there. `done` hears how many queries have theirs.
    """
    texts = texts_fingerprint([texts_fingerprint(pairs.queries), texts_fingerprint(pairs.passages)])
    arrays = stored_rows(
        directory / f"candidates-{source.name}-{texts_fingerprint([source.fingerprint, str(depth), texts])}",
        len(pairs.queries),
        BLOCK,
        lambda start, end: {"candidates": source.best(np.arange(start, end), depth)},
        about={"source": source.name, "source_fingerprint": source.fingerprint},
        done=done,
    )
    return arrays["candidates"]


def mine(pairs: PairSet, lists: Sequence[Rows], rule: MiningRule, teacher: TeacherVectors | None = None) -> Negatives:
    """Draws the negatives of every link from the lists of its query, see `MiningRule`.

    `lists` are what `candidate_lists` gives, one a source. Known answers of the query are never drawn, no passage is
    drawn twice for a link, and the same arguments draw the same. Without a `teacher` the ceiling plays no part.

    Raises InvalidInput (`bad_mining`) for no list.
    """
    if not lists:
        raise InvalidInput("bad_mining", "Mining needs at least one list of candidates.")
    cut = [np.asarray(one)[:, rule.skip : rule.depth] for one in lists]
    miner = _Miner(pairs, np.concatenate(cut, axis=1), rule, teacher, Positives(pairs), dict.fromkeys(_COUNTS, 0))
    rows = np.full((len(pairs), rule.count), NONE, dtype=np.int32)
    for start in range(0, len(pairs), BLOCK):
        links = np.arange(start, min(start + BLOCK, len(pairs)))
        rows[links] = miner.draw(links, np.random.default_rng([rule.seed, start]))
    return Negatives(rows, miner.counts)


@dataclass
class _Miner:
    pairs: PairSet
    candidates: Rows
    rule: MiningRule
    teacher: TeacherVectors | None
    positives: Positives
    counts: dict[str, int]

    def draw(self, links: NDArray[np.int64], random: np.random.Generator) -> Rows:
        """[links, count]: from the lists, then by chance from all passages, then -1."""
        count, total = self.rule.count, len(self.pairs.passages)
        mined = self._usable(links, self.candidates[self.pairs.query_rows[links]], told=True)
        chosen = _shuffled(mined, random)[:, :count]
        held = (chosen != NONE).sum(axis=1)
        short = np.flatnonzero(held < count)
        drawn = random.integers(0, max(1, total), (short.size, _DRAWS * count), dtype=np.int32)
        further = np.full((links.size, drawn.shape[1]), NONE, dtype=np.int32)
        further[short] = self._usable(links[short], drawn)
        found = _first_distinct(np.concatenate([chosen, further], axis=1), count)
        self.counts["mined"] += int(held.sum())
        self.counts["random"] += int((found != NONE).sum()) - int(held.sum())
        self.counts["missing"] += int((found == NONE).sum())
        return found

    def _usable(self, links: NDArray[np.int64], rows: Rows, *, told: bool = False) -> Rows:
        """The same rows, with -1 for those that are no negatives of their link; with `told` these are counted."""
        answers = self.positives.holds(self.pairs.query_rows[links][:, None], rows)
        rows = np.where(answers, NONE, rows)
        above = self._above(links, rows)
        if told:
            self.counts["known"] += int(answers.sum())
            self.counts["too_good"] += int(above.sum())
        return np.where(above, NONE, rows).astype(np.int32)

    def _above(self, links: NDArray[np.int64], rows: Rows) -> NDArray[np.bool_]:
        above = np.zeros(rows.shape, dtype=np.bool_)
        if self.teacher is None or self.rule.ceiling is None:
            return above
        for place, link in enumerate(links.tolist()):
            named = np.flatnonzero(rows[place] != NONE)
            if named.size:
                asked = np.append(rows[place][named], self.pairs.passage_rows[link])
                scores = self.teacher.scores(self.pairs.query_rows[[link]], asked)[0]
                own = float(scores[-1])
                # (a share of a negative number would lie above it)
                above[place, named] = scores[:-1] > (own * self.rule.ceiling if own > 0 else own)
        return above


def _shuffled(rows: Rows, random: np.random.Generator) -> Rows:
    """Each row's passages in an order of chance, -1 and repetitions last (as -1)."""
    keys = random.random(rows.shape)
    keys[rows == NONE] = 2
    mixed = np.take_along_axis(rows, np.argsort(keys, axis=1), axis=1)
    return _first_distinct(mixed, rows.shape[1])


def _first_distinct(rows: Rows, count: int) -> Rows:
    """[n, count]: each row's first distinct passages, filled up with -1."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    again = np.zeros(rows.shape, dtype=np.bool_)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeated = np.zeros_like(again)
    np.put_along_axis(repeated, order, again, axis=1)
    kept = np.where(repeated, NONE, rows)
    front = np.argsort(kept == NONE, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(kept, front, axis=1).astype(np.int32)
