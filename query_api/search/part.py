"""Which part of a ranking is asked for: hits passed over by number, or by the place of the last one that was seen.

By place goes as deep as the matches do. Where a ranking exists only as a list that was made here (fused, or rescored to
a certain depth), there is no place in the engine's order, and the part is cut out of the whole list, made again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from query_api.search.answer import End

One = TypeVar("One")


@dataclass(slots=True)
class Part:
    """What comes before the part, and, once it was cut, why nothing comes after it (`end`) or how to go on.

    `begin`: hits before it. `by_place`: it begins after `after` (the values that a hit is sorted by; None: at the
    top) and after `skip` hits more. `depth`: length of the lists that are fused. `rules`: versions of the rules of
    indexes by which the first page was made.

    Of pinned documents, which are not of the ranking: `pins` are those whose places come before the part, `last_pin` is
    the last place of all (0: none). Where there are any, `ranked` says how many others the whole ranking has, counted
    no further than that place.
    """

    begin: int = 0
    by_place: bool = False
    after: list[Any] | None = None
    skip: int = 0
    depth: int = 0
    end: End | None = None
    pins: int = 0
    last_pin: int = 0
    ranked: int = 0
    rules: dict[str, int] = field(default_factory=dict)

    def ask(self, search: dict[str, Any], size: int) -> None:
        """Makes the body of one list one of the part, and of one hit more, which tells whether anything follows."""
        if self.last_pin:
            search["track_total_hits"] = self.last_pin
        if not self.by_place:
            search["from"], search["size"] = self.begin - self.pins, size + 1
            return
        # Equal scores are ordered by the engine's number of the document, which costs nothing to sort by. Of several
        # shards, one document each may have the same number: `skip` counts those of them that were given.
        search["sort"] = [*search.get("sort", [{"_score": "desc"}]), {"_doc": "asc"}]
        search["size"] = self.skip + size + 1
        if self.after is not None:
            search["search_after"] = self.after

    def of_list(self, answer: Mapping[str, Any], size: int) -> Sequence[dict[str, Any]]:
        """The hits of the part, from `hits` of the answer to what `ask` made."""
        hits: Sequence[dict[str, Any]] = answer["hits"]
        if self.last_pin:
            self.ranked = answer["total"]["value"]
        shown = hits[self.skip : self.skip + size]
        if len(hits) <= self.skip + size:
            self.end = "matches"
        if self.by_place and hits[: self.skip + size]:  # (a part of pinned documents alone goes on where it began)
            self._go_on(hits[: self.skip + size])
        self.begin += len(shown)
        return shown

    def _go_on(self, hits: Sequence[dict[str, Any]]) -> None:
        """The next part begins after the last of these. OpenSearch passes over all that is sorted as high as `after`
        is, so that is the last value before those that are sorted as the last hit is, and these are counted.
        """
        last = hits[-1]["sort"]
        first = next(at for at, hit in enumerate(hits) if hit["sort"] == last)
        if first:
            self.after, self.skip = hits[first - 1]["sort"], len(hits) - first
        else:
            self.skip = len(hits)

    def of_fused(self, fused: Sequence[One], size: int, *, full: bool) -> Sequence[One]:
        """The part of a whole list; `full`: one that it was fused of had as many hits as were asked for."""
        begin = self.begin - self.pins
        shown = fused[begin : begin + size]
        self.ranked = len(fused)
        if len(fused) <= begin + size:
            self.end = "candidates" if full else "matches"
        self.begin += len(shown)
        return shown
