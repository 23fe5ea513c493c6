"""Significance of the difference between two rankings of the same queries.

`compare_rankings` compares the figures query by query: the mean difference, its interval (paired bootstrap) and the
probability of a difference as large by chance (paired randomisation test). Smucker, Allan and Carterette (CIKM 2007)
recommend the randomisation test for retrieval experiments.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

# The standard error of a p-value of .05 is then .0022.
ROUNDS: Final = 10_000
_SEED: Final = 20_070_611
_CHUNK_CELLS: Final = 4_000_000
# Queries whose figures changed the most, in reports.
MAX_CHANGED_QUERIES: Final = 20


@dataclass(frozen=True, slots=True)
class QueryChange:
    """The figures of one query before and after."""

    query: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """The difference of two means over the same queries.

    `low` and `high` are the bounds of its 95 % interval, and `p` is the two-sided probability of a difference as large
    if chance had swapped the two systems query by query. `gained` and `lost` are the queries that changed the most.
    """

    queries: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float
    gained_count: int
    lost_count: int
    gained: list[QueryChange]
    lost: list[QueryChange]

    @property
    def is_beyond_chance(self) -> bool:
        """Return whether the interval excludes zero and p is below .05."""
        return self.p < 0.05 and not self.low <= 0 <= self.high

    def as_json(self) -> dict[str, Any]:
        """Return the comparison for a report, with five digits."""
        members = asdict(self) | {"beyond_chance": self.is_beyond_chance}
        return {name: round(value, 5) if isinstance(value, float) else value for name, value in members.items()}

    def figures(self) -> dict[str, Any]:
        """Return the comparison for a report, as `as_json` does, without the queries that changed."""
        return {name: value for name, value in self.as_json().items() if name not in ("gained", "lost")}


def compare_rankings(before: Mapping[str, float], after: Mapping[str, float]) -> PairedComparison:
    """Compare a figure of each query before and after. Both have the same queries, at least one.

    Raises ValueError for different queries or none.
    """
    if before.keys() != after.keys() or not before:
        raise ValueError("a paired comparison needs the same queries on both sides, and at least one")
    names = list(before)
    old, new = (np.array([side[name] for name in names]) for side in (before, after))
    differences = new - old
    observed = float(differences.mean())
    generator = np.random.default_rng(_SEED)
    means, extreme = [], 0
    rows = max(1, _CHUNK_CELLS // len(names))
    for at in range(0, ROUNDS, rows):
        count = min(rows, ROUNDS - at)
        means.append(differences[generator.integers(0, len(names), (count, len(names)))].mean(axis=1))
        signs = generator.integers(0, 2, (count, len(names)), dtype=np.int8) * 2 - 1
        # Rounding must not separate two arrangements with the same mean.
        extreme += int((np.abs((signs * differences).mean(axis=1)) >= abs(observed) - 1e-12).sum())
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    changes = sorted(
        (QueryChange(name, float(a), float(b)) for name, a, b in zip(names, old, new, strict=True) if a != b),
        key=lambda change: change.after - change.before,
    )
    gained = [change for change in reversed(changes) if change.after > change.before]
    lost = [change for change in changes if change.after < change.before]
    return PairedComparison(
        len(names),
        float(old.mean()),
        float(new.mean()),
        observed,
        float(low),
        float(high),
        # The observed arrangement is one of the possible ones, so p is never 0.
        (extreme + 1) / (ROUNDS + 1),
        len(gained),
        len(lost),
        gained[:MAX_CHANGED_QUERIES],
        lost[:MAX_CHANGED_QUERIES],
    )
