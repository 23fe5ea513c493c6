"""A second opinion on the best of a list: its scores and the list's own, brought to one scale and summed."""

from collections.abc import Mapping, Sequence
from typing import Final

from services.fusion import min_max

# The opinion's share when nobody says otherwise; measured for dense vectors (docs/decisions/0143).
DEFAULT_WEIGHT: Final = 0.7


def interpolated(
    found: Sequence[tuple[str, float]], opinion: Mapping[str, float], weight: float
) -> list[tuple[str, float]]:
    """The documents of `found` in their new order, best first, equal scores by id; scores lie in [0, 1].

    Both scores are min-max scaled within these documents: (1 - weight) x the list's + weight x the opinion's. A
    document without an opinion keeps its place as far as that goes: the list's score stands in for the missing one.
    """
    own = min_max(dict(found))
    other = min_max({name: opinion[name] for name in own if name in opinion})
    scores = {name: (1 - weight) * score + weight * other.get(name, score) for name, score in own.items()}
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
