"""Batches of a run: the dataset holds rows; texts and teachers' scores are looked up when a batch is put together.

Which columns of a batch are no negatives of a query: its other answers, and passages that stand there twice.

Several pair sets as one: weights, caps, and the order in which an epoch sees them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers.sparse_encoder.data_collator import SparseEncoderDataCollator

from models.training.pairs import Pair, PairSet, Rows, join_pair_sets, pair_set_name, read_pairs
from models.training.storage import ReadReport
from models.training.teachers import TeacherEnsemble
from services.errors import InvalidInput

Mask = NDArray[np.bool_]


class PositiveLinks:
    """Every link of a set, to be asked for many (query, passage) at once."""

    def __init__(self, pairs: PairSet) -> None:
        self._width = max(1, len(pairs.passages))
        self._known = np.unique(self._keys(pairs.query_rows, pairs.passage_rows))

    def holds(self, query_rows: NDArray[np.integer], passage_rows: NDArray[np.integer]) -> Mask:
        """Whether the passage answers the query, for each element of the two arrays, which are broadcast.

        Rows below 0 (no query, no passage) answer nothing.
        """
        queries, passages = np.broadcast_arrays(query_rows, passage_rows)
        if not self._known.size:
            return np.zeros(queries.shape, dtype=np.bool_)
        keys = self._keys(queries, passages)
        places = np.minimum(np.searchsorted(self._known, keys), self._known.size - 1)
        found: Mask = (self._known[places] == keys) & (queries >= 0) & (passages >= 0)
        return found

    def _keys(self, query_rows: NDArray[np.integer], passage_rows: NDArray[np.integer]) -> NDArray[np.int64]:
        return query_rows.astype(np.int64) * self._width + passage_rows


def mask_false_negatives(
    positives: PositiveLinks,
    query_rows: NDArray[np.integer],
    passage_rows: NDArray[np.integer],
    own: NDArray[np.integer] | None = None,
) -> Mask:
    """Bool [B, M]: the columns that a query's loss and targets must leave out.

    `query_rows` [B] and `passage_rows` [M] are rows of the set of `positives`; `own` [B] is each query's column (0 to
    B-1 when absent). Left out are other known answers of the query (false negatives), every further copy of a passage
    that stands in the batch more than once, and columns with row -1 (no passage). A query's own column never is.
    """
    queries, passages = np.asarray(query_rows), np.asarray(passage_rows)
    columns = np.arange(queries.size) if own is None else np.asarray(own)
    mask = positives.holds(queries[:, None], passages[None, :])
    first = np.zeros(passages.size, dtype=np.bool_)
    first[np.unique(passages, return_index=True)[1]] = True
    mask |= ~first | (passages < 0)
    # The first copy of a query's own passage is a known answer, hence masked already when its own column is a later
    # one; a query whose own passage is no known link would have it twice.
    mask |= passages[None, :] == passages[columns][:, None]
    mask[np.arange(queries.size), columns] = False
    return mask


MAX_WEIGHT = 1000.0
_MAX_EPOCHS = 100


@dataclass(frozen=True, slots=True)
class MixtureFile:
    """One set of a mixture. Each epoch draws each of its pairs `weight` times; `cap` bounds how many it has at all.

    Raises InvalidInput (`bad_mixture`) for a weight that is not in (0, 1000] and a cap below 1.
    """

    path: Path
    name: str = ""
    weight: float = 1.0
    cap: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.weight <= MAX_WEIGHT or (self.cap is not None and self.cap < 1):
            raise InvalidInput(
                "bad_mixture",
                f"{self.path}: a weight lies above 0 and is at most {MAX_WEIGHT:.0f}, a cap is at least 1; "
                f"given were {self.weight} and {self.cap}.",
            )


@dataclass(frozen=True, slots=True)
class PairMixture:
    """The pairs of all files; `weights` by origin. A line that names an origin of its own has NAME/ORIGIN."""

    pairs: PairSet
    weights: dict[str, float]
    reports: list[ReadReport] = field(default_factory=list)

    def epoch(self, seed: int, epoch: int) -> Rows:
        """The links of an epoch in the order in which they are seen; see `epoch_order`."""
        return epoch_order(self.pairs, self.weights, seed, epoch)

    def cycle(self, seed: int) -> Rows:
        """The links of as many epochs as every set needs to be seen whole: one where all weights are whole numbers,
        four with a weight of 0.25; at most 100."""
        shares = [Fraction(weight).limit_denominator(_MAX_EPOCHS) for weight in self.weights.values()]
        period = math.lcm(*(share.denominator if share else _MAX_EPOCHS for share in shares))
        return np.concatenate([self.epoch(seed, epoch) for epoch in range(min(period, _MAX_EPOCHS))])


def read_mixture(files: Sequence[MixtureFile], seed: int) -> PairMixture:
    """Reads every file; which pairs a cap leaves is decided by `seed` and the name alone.

    Raises InvalidInput (`bad_mixture`) for no file and for two of one name, and as `read_pairs`.
    """
    names = [one.name or pair_set_name(one.path) for one in files]
    if not files or len(set(names)) < len(names):
        raise InvalidInput("bad_mixture", f"A mixture has at least one set, each with its own name: {names}.")
    weights: dict[str, float] = {}
    reports: list[ReadReport] = []
    sets: list[PairSet] = []
    for one, name in zip(files, names, strict=True):
        report = ReadReport(str(one.path))
        found = PairSet.of(_name_origins(one.path, report, name))
        if one.cap is not None and len(found) > one.cap:
            found = found.take(np.sort(_seeded_generator(seed, name).permutation(len(found))[: one.cap]))
        weights.update(dict.fromkeys(found.origins, one.weight))
        sets.append(found)
        reports.append(report)
    return PairMixture(sets[0] if len(sets) == 1 else join_pair_sets(sets), weights, reports)


def epoch_order(pairs: PairSet, weights: Mapping[str, float], seed: int, epoch: int) -> Rows:
    """Int32 [n]: links in the order of epoch `epoch` (from 0). Depends on its arguments only, so a run can resume.

    A set of weight 2 gives each link twice; one of weight 0.25 gives another quarter of its links each time, so that
    four epochs have seen them all. Origins that `weights` does not name have weight 1.
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
    """By the name: what one set gives does not change when another joins the mixture."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())])


QUERY, OWN = "query", "positive"


def negative_column(number: int) -> str:
    return f"negative_{number}"


def column_sides(negatives: int) -> dict[str, str]:
    """Column names in their order, each with the side of the encoder that reads it."""
    return {QUERY: "query", OWN: "document"} | {negative_column(n): "document" for n in range(negatives)}


def build_link_dataset(pairs: PairSet, negatives: Rows | None, order: Rows) -> Dataset:
    """One row for each of the links in `order`, which may name one several times.

    `rows` holds the query's row, its passage's and those of its hard negatives; `negatives` is int32 [links, count].
    """
    rows = np.stack([pairs.query_rows, pairs.passage_rows], axis=1)
    if negatives is not None:
        rows = np.concatenate([rows, negatives], axis=1)
    return Dataset.from_dict({"rows": rows[order].astype(np.int32)})


@dataclass
class PairCollator(SparseEncoderDataCollator):
    """Puts a batch together: tokenised columns and `label`, see `models.training.losses.RankingLoss`.

    Passages are ordered column by column, as the loss sees them. Without teachers the run is contrastive only.
    """

    pairs: PairSet = field(default_factory=lambda: PairSet.of([]))
    teachers: TeacherEnsemble | None = None
    _positives: PositiveLinks = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._positives = PositiveLinks(self.pairs)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        rows = np.asarray([feature["rows"] for feature in features], dtype=np.int32)
        names = column_sides(rows.shape[1] - 2)
        texts = [self.pairs.queries, *[self.pairs.passages] * (rows.shape[1] - 1)]
        batch: dict[str, Any] = super().__call__(
            [
                # a pair for which too few hard negatives were found has row -1 for the others
                {name: texts[column][row[column]] if row[column] >= 0 else "" for column, name in enumerate(names)}
                for row in rows.tolist()
            ]
        )
        query_rows, passage_rows = rows[:, 0].copy(), rows[:, 1:].T.reshape(-1).copy()
        out = mask_false_negatives(self._positives, query_rows, passage_rows)
        found = np.zeros(out.shape) if self.teachers is None else self.teachers.targets(query_rows, passage_rows, out)
        batch["label"] = torch.from_numpy(np.stack([found, ~out], axis=1).astype(np.float32))
        return batch
