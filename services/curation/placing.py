"""Pinned documents among ranked ones. Pure."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

_T = TypeVar("_T")


def places(wanted: Sequence[int], ranked: int) -> list[int]:
    """Where pinned documents stand among so many ranked ones, both counted from 1 over the whole ranking.

    `wanted` are their places in ascending order; those behind the end of the ranked ones follow right after them.
    """
    return [min(place, ranked + at) for at, place in enumerate(wanted, 1)]


def placed(ranked: Sequence[_T], pinned: Mapping[int, _T], size: int) -> list[_T]:
    """A page of `size` in which each pinned one stands at its place (1 is the first of the page).

    Where the ranked ones end before a place, the pinned one comes right after them, if there is room.
    """
    others = iter(ranked)
    places = sorted(pinned)
    found: list[_T] = []
    while len(found) < size:
        if places and places[0] == len(found) + 1:
            found.append(pinned[places.pop(0)])
            continue
        one = next(others, None)
        if one is None:
            return found + [pinned[place] for place in places][: size - len(found)]
        found.append(one)
    return found
