"""Several pair sets as one: weights, caps, and the order in which an epoch sees them."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from models.training.json_lines import ReadReport
from models.training.pair_files import read_pairs, set_name
from models.training.pairs import Pair, PairSet, Rows, join
from services.errors import InvalidInput

MOST_WEIGHT = 1000.0
_MOST_EPOCHS = 100


@dataclass(frozen=True, slots=True)
class PairFile:
    """One set of a mixture. Each epoch draws each of its pairs `weight` times; `cap` bounds how many it has at all.

    Raises InvalidInput (`bad_mixture`) for a weight that is not in (0, 1000] and a cap below 1.
    """

    path: Path
    name: str = ""
    weight: float = 1.0
    cap: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.weight <= MOST_WEIGHT or (self.cap is not None and self.cap < 1):
            raise InvalidInput(
                "bad_mixture",
                f"{self.path}: a weight lies above 0 and is at most {MOST_WEIGHT:.0f}, a cap is at least 1; "
                f"given were {self.weight} and {self.cap}.",
            )


@dataclass(frozen=True, slots=True)
class Mixture:
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
        shares = [Fraction(weight).limit_denominator(_MOST_EPOCHS) for weight in self.weights.values()]
        period = math.lcm(*(share.denominator if share else _MOST_EPOCHS for share in shares))
        return np.concatenate([self.epoch(seed, epoch) for epoch in range(min(period, _MOST_EPOCHS))])


def read_mixture(files: Sequence[PairFile], seed: int) -> Mixture:
    """Reads every file; which pairs a cap leaves is decided by `seed` and the name alone.

    Raises InvalidInput (`bad_mixture`) for no file and for two of one name, and as `read_pairs`.
    """
    names = [one.name or set_name(one.path) for one in files]
    if not files or len(set(names)) < len(names):
        raise InvalidInput("bad_mixture", f"A mixture has at least one set, each with its own name: {names}.")
    weights: dict[str, float] = {}
    reports: list[ReadReport] = []
    sets: list[PairSet] = []
    for one, name in zip(files, names, strict=True):
        report = ReadReport(str(one.path))
        found = PairSet.of(_named(one.path, report, name))
        if one.cap is not None and len(found) > one.cap:
            found = found.take(np.sort(_generator(seed, name).permutation(len(found))[: one.cap]))
        weights.update(dict.fromkeys(found.origins, one.weight))
        sets.append(found)
        reports.append(report)
    return Mixture(sets[0] if len(sets) == 1 else join(sets), weights, reports)


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
        chosen.append(links[_generator(seed, origin).permutation(links.size)[places]])
    order = np.concatenate(chosen)
    np.random.default_rng([seed, epoch]).shuffle(order)
    return order


def _named(path: Path, report: ReadReport, name: str) -> Iterator[Pair]:
    for pair in read_pairs(path, report, origin=""):
        yield pair._replace(origin=f"{name}/{pair.origin}" if pair.origin else name)


def _generator(seed: int, name: str) -> np.random.Generator:
    """By the name: what one set gives does not change when another joins the mixture."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())])
