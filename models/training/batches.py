"""Batches of a run: mixture of pair sets, order of an epoch, false negatives, tokenised columns.

`read_mixture` joins pair files with weights and caps, and `epoch_order` draws the links of an epoch from its arguments
alone, so a run can resume. The dataset holds rows only; `PairCollator` (train.py) looks up texts and teachers' scores
for a batch. `mask_false_negatives` says which columns of a batch are not negatives of a query.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.training.pairs import Pair, PairSet, Rows, join_pair_sets, pair_set_name, read_pairs
from models.training.storage import ReadReport
from services.errors import InvalidInput

Mask = NDArray[np.bool_]
MAX_WEIGHT = 1000.0
_MAX_EPOCHS = 100
QUERY, OWN = "query", "positive"


def column_sides(negatives: int) -> dict[str, str]:
    """Return the column names in their order, each with the side of the encoder that reads it."""
    return {QUERY: "query", OWN: "document"} | {negative_column(n): "document" for n in range(negatives)}


def negative_column(number: int) -> str:
    """Return the name of the column of a batch with the negatives of this number."""
    return f"negative_{number}"


class PositiveLinks:
    """Links of a set, for lookups of many (query, passage) pairs at once."""

    def __init__(self, pairs: PairSet) -> None:
        self._width = max(1, len(pairs.passages))
        self._known = np.unique(self._keys(pairs.query_rows, pairs.passage_rows))

    def holds(self, query_rows: NDArray[np.integer], passage_rows: NDArray[np.integer]) -> Mask:
        """Tell for each element of two broadcast arrays whether the passage answers the query.

        Rows below 0 (no query, no passage) answer nothing.
        """
        queries, passages = np.broadcast_arrays(query_rows, passage_rows)
        if not self._known.size:
            return np.zeros(queries.shape, dtype=np.bool_)
        keys = self._keys(queries, passages)
        places = np.minimum(np.searchsorted(self._known, keys), self._known.size - 1)
        known: Mask = (self._known[places] == keys) & (queries >= 0) & (passages >= 0)
        return known

    def _keys(self, query_rows: NDArray[np.integer], passage_rows: NDArray[np.integer]) -> NDArray[np.int64]:
        return query_rows.astype(np.int64) * self._width + passage_rows


def mask_false_negatives(
    positives: PositiveLinks,
    query_rows: NDArray[np.integer],
    passage_rows: NDArray[np.integer],
    own: NDArray[np.integer] | None = None,
) -> Mask:
    """Return bool [B, M]: the columns that a query's loss and targets must leave out.

    `query_rows` [B] and `passage_rows` [M] are rows of the set of `positives`; `own` [B] is the column of each query's
    own passage (default: 0 to B-1). The mask holds other known answers of the query (false negatives), later copies of
    a passage that is in the batch more than once, and columns with row -1 (no passage). The own column is never masked.
    """
    queries, passages = np.asarray(query_rows), np.asarray(passage_rows)
    columns = np.arange(queries.size) if own is None else np.asarray(own)
    mask = positives.holds(queries[:, None], passages[None, :])
    first = np.zeros(passages.size, dtype=np.bool_)
    first[np.unique(passages, return_index=True)[1]] = True
    mask |= ~first | (passages < 0)
    # A query whose own column is a later copy must not see the first copy. Links that `positives` knows are masked
    # above; this covers queries whose own passage is not a known link.
    mask |= passages[None, :] == passages[columns][:, None]
    mask[np.arange(queries.size), columns] = False
    return mask


@dataclass(frozen=True, slots=True)
class MixtureFile:
    """Pair file of a mixture. An epoch draws each of its pairs `weight` times; `cap` limits how many pairs the run
    uses.

    Raises InvalidInput (`bad_mixture`) for a weight outside (0, 1000] and a cap below 1.
    """

    path: Path
    name: str = ""
    weight: float = 1.0
    cap: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.weight <= MAX_WEIGHT or (self.cap is not None and self.cap < 1):
            raise InvalidInput(
                "bad_mixture",
                f"{self.path}: a weight must be above 0 and at most {MAX_WEIGHT:.0f}, a cap at least 1; "
                f"they are {self.weight} and {self.cap}.",
            )


@dataclass(frozen=True, slots=True)
class PairMixture:
    """Pairs of several files, with `weights` by origin. A line that names its origin gets NAME/ORIGIN."""

    pairs: PairSet
    weights: dict[str, float]
    reports: list[ReadReport] = field(default_factory=list)

    def epoch(self, seed: int, epoch: int) -> Rows:
        """Return the links of an epoch in their order, see `epoch_order`."""
        return epoch_order(self.pairs, self.weights, seed, epoch)

    def cycle(self, seed: int) -> Rows:
        """Return the links of as many epochs as it takes to see every set whole, at most 100.

        When all weights are whole numbers, one epoch is enough; a weight of 0.25 takes four.
        """
        shares = [Fraction(weight).limit_denominator(_MAX_EPOCHS) for weight in self.weights.values()]
        period = math.lcm(*(share.denominator if share else _MAX_EPOCHS for share in shares))
        return np.concatenate([self.epoch(seed, epoch) for epoch in range(min(period, _MAX_EPOCHS))])


def read_mixture(files: Sequence[MixtureFile], seed: int) -> PairMixture:
    """Read every file. Only `seed` and the set's name decide which pairs a cap keeps.

    Raises InvalidInput (`bad_mixture`) for no file and for two with the same name, and the errors of `read_pairs`.
    """
    names = [file.name or pair_set_name(file.path) for file in files]
    if not files or len(set(names)) < len(names):
        raise InvalidInput("bad_mixture", f"A mixture needs at least one set, each with a different name: {names}.")
    weights: dict[str, float] = {}
    reports: list[ReadReport] = []
    sets: list[PairSet] = []
    for file, name in zip(files, names, strict=True):
        report = ReadReport(str(file.path))
        pairs = PairSet.of(_name_origins(file.path, report, name))
        if file.cap is not None and len(pairs) > file.cap:
            pairs = pairs.take(np.sort(_seeded_generator(seed, name).permutation(len(pairs))[: file.cap]))
        weights.update(dict.fromkeys(pairs.origins, file.weight))
        sets.append(pairs)
        reports.append(report)
    return PairMixture(sets[0] if len(sets) == 1 else join_pair_sets(sets), weights, reports)


def epoch_order(pairs: PairSet, weights: Mapping[str, float], seed: int, epoch: int) -> Rows:
    """Return the links of epoch `epoch` (from 0) in their order, int32 [n]. The result depends on the arguments only.

    A set of weight 2 gives each link twice; a set of weight 0.25 gives another quarter of its links in each of four
    epochs. Origins that `weights` does not name have weight 1.
    """
    chosen: list[Rows] = [np.empty(0, np.int32)]
    for number, origin in enumerate(pairs.origins):
        links = np.flatnonzero(pairs.origin_rows == number).astype(np.int32)
        if not links.size:
            continue
        drawn = weights.get(origin, 1.0) * links.size
        places = np.arange(int(epoch * drawn), int((epoch + 1) * drawn)) % links.size
        chosen.append(links[_seeded_generator(seed, origin).permutation(links.size)[places]])
    order = np.concatenate(chosen)
    np.random.default_rng([seed, epoch]).shuffle(order)
    return order


def _name_origins(path: Path, report: ReadReport, name: str) -> Iterator[Pair]:
    for pair in read_pairs(path, report, origin=""):
        yield pair._replace(origin=f"{name}/{pair.origin}" if pair.origin else name)


def _seeded_generator(seed: int, name: str) -> np.random.Generator:
    """Return a generator seeded by the set's name: another set in the mixture does not change this set's draws."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())])
