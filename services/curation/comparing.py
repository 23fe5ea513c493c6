"""What differs between two answers to one query: for an operator who asks before changing anything."""

from collections.abc import Sequence
from dataclasses import dataclass, field

# Persistence of rank-biased overlap: with .9 the first ten places have 86 % of the weight.
PERSISTENCE = 0.9


@dataclass(frozen=True, slots=True)
class Difference:
    """Places are counted from 1. `overlap` is rank-biased overlap, 1 for the same list."""

    entered: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    moved: dict[str, tuple[int, int]] = field(default_factory=dict)
    overlap: float = 1.0

    @property
    def any(self) -> bool:
        return bool(self.entered or self.left or self.moved)


def difference(before: Sequence[str], after: Sequence[str]) -> Difference:
    """What came in, what went, what has another place than before, and how much of the two lists is the same."""
    old = {one: place for place, one in enumerate(before, 1)}
    new = {one: place for place, one in enumerate(after, 1)}
    return Difference(
        {one: place for one, place in new.items() if one not in old},
        {one: place for one, place in old.items() if one not in new},
        {one: (old[one], place) for one, place in new.items() if one in old and old[one] != place},
        rank_biased_overlap(before, after),
    )


def rank_biased_overlap(first: Sequence[str], second: Sequence[str], p: float = PERSISTENCE) -> float:
    """How much two lists without repeated entries agree, the first places counting most: from 0 to 1.

    The sum over depths of Webber, Moffat and Zobel 2010 (equation 7), cut where the longer list ends and divided by
    what two lists that are the same would have there. Not extrapolated: these lists have ended, no more is to come, so
    a list and its beginning differ. Two empty lists are the same.
    """
    depths = max(len(first), len(second))
    if not depths:
        return 1.0
    one: set[str] = set()
    other: set[str] = set()
    agreed = 0.0
    for depth in range(1, depths + 1):
        one.update(first[depth - 1 : depth])
        other.update(second[depth - 1 : depth])
        agreed += len(one & other) / depth * p ** (depth - 1)
    return agreed * (1 - p) / (1 - p**depths)
