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
    own, other = _scaled(found, opinion)
    scores = {name: (1 - weight) * score + weight * other.get(name, score) for name, score in own.items()}
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def parts(
    found: Sequence[tuple[str, float]], opinion: Mapping[str, float], weight: float
) -> dict[str, dict[str, tuple[float, float]]]:
    """Of each document, share and scaled score of the list and of the opinion: `interpolated` adds the products.

    For explanations: the scaling is done again, by those who ask only.
    """
    own, other = _scaled(found, opinion)
    return {
        name: {"list": (1 - weight, score), "opinion": (weight, other.get(name, score))} for name, score in own.items()
    }


def _scaled(
    found: Sequence[tuple[str, float]], opinion: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    own = min_max(dict(found))
    return own, min_max({name: opinion[name] for name in own if name in opinion})
