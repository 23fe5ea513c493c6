"""The place of a page in a ranking, and the cursor that carries it to the next request.

A page is found by number (hits to pass over) or by position (the sort values of the last hit). A position reaches as
deep as the matches do. A ranking made in the API (fused, or rescored to a certain depth) has no position in
OpenSearch's order: its pages are cut out of the whole ranking, which is made again for each page.

A cursor seals a digest of the request, the point in time and the position that the pages reached. API processes keep no
state of it, so any process can answer the next page (docs/decisions/0165).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Self, TypeVar

from query_api.schemas.search_request import SearchRequest
from query_api.schemas.search_response import End
from services.errors import InvalidInput
from services.opensearch.paging import seal_cursor, unseal_cursor

Item = TypeVar("Item")
FIRST_PAGE = "*"
# The first member of every cursor. A later format will have another number, and is refused.
_CURSOR_FORMAT = 1
# Members that may differ from page to page: they change how hits are shown, not which hits they are.
_PAGE_MEMBERS = {"cursor", "size", "passage", "highlight", "explain", "fields", "did_you_mean", "learn"}


@dataclass(frozen=True, slots=True)
class PageState:
    """The place of a page in a ranking.

    The state after a page says why no page follows (`end`) or where the next page begins.

    `begin`: number of hits before the page. `by_position`: the page begins after the sort values `after` (None: at the
    top) and after `skip` more hits. `depth`: length of the lists that are fused. `rules`: by index, the version of the
    curation rules on the first page.

    Pinned documents are not part of the ranking. `pins`: number of pins placed before the page. `last_pin`: the last
    place of any pin (0: there are none). `ranked`: number of other hits in the whole ranking, counted up to that place.
    """

    begin: int = 0
    by_position: bool = False
    after: list[Any] | None = None
    skip: int = 0
    depth: int = 0
    end: End | None = None
    pins: int = 0
    last_pin: int = 0
    ranked: int = 0
    rules: Mapping[str, int] = field(default_factory=dict)

    def narrow(self, search: dict[str, Any], size: int) -> dict[str, Any]:
        """Return the body of a list, limited to the page and one more hit, which shows whether another page follows."""
        search = dict(search)
        if self.last_pin:
            search["track_total_hits"] = self.last_pin
        if not self.by_position:
            search["from"], search["size"] = self.begin - self.pins, size + 1
            return search
        # OpenSearch orders equal scores by Lucene's document number, so sorting by that number is free. Documents of
        # different shards may have the same number: `skip` counts those that earlier pages showed.
        search["sort"] = [*search.get("sort", [{"_score": "desc"}]), {"_doc": "asc"}]
        search["size"] = self.skip + size + 1
        if self.after is not None:
            search["search_after"] = self.after
        return search

    def of_list(self, answer: Mapping[str, Any], size: int) -> tuple[Sequence[dict[str, Any]], "PageState"]:
        """Cut the page out of the `hits` member of an answer to a `narrow`ed body; return it with the next state."""
        hits: Sequence[dict[str, Any]] = answer["hits"]
        shown = hits[self.skip : self.skip + size]
        after, skip = self.after, self.skip
        # A page of pins alone has no hits: the next page continues at the same position.
        if self.by_position and (seen := hits[: self.skip + size]):
            after, skip = self._last_position(seen)
        next_state = replace(
            self,
            begin=self.begin + len(shown),
            after=after,
            skip=skip,
            end="matches" if len(hits) <= self.skip + size else self.end,
            ranked=answer["total"]["value"] if self.last_pin else self.ranked,
        )
        return shown, next_state

    def _last_position(self, hits: Sequence[dict[str, Any]]) -> tuple[list[Any] | None, int]:
        """Return `after` and `skip` for the page that follows these hits.

        OpenSearch passes over every hit with the same sort values as `after`. So `after` is the last value before the
        hits that share the last hit's values, and `skip` counts the hits that share them.
        """
        last = hits[-1]["sort"]
        first = next(n for n, hit in enumerate(hits) if hit["sort"] == last)
        return (hits[first - 1]["sort"], len(hits) - first) if first else (self.after, len(hits))

    def of_ranking(self, ranking: Sequence[Item], size: int, *, full: bool) -> tuple[Sequence[Item], "PageState"]:
        """Cut the page out of a whole ranking; return it with the next state.

        `full`: a list behind the ranking was cut at its depth, so a deeper list may hold more.
        """
        begin = self.begin - self.pins
        shown = ranking[begin : begin + size]
        end = self.end
        if len(ranking) <= begin + size:
            end = "candidates" if full else "matches"
        return shown, replace(self, begin=self.begin + len(shown), end=end, ranked=len(ranking))


@dataclass(frozen=True, slots=True)
class CursorPosition:
    """The position that a cursor seals.

    `digest`: of the request. `frequencies`: for each of `physical`, the version of the piece frequencies on the first
    page. The rest is as in `PointInTime` and `PageState`.
    """

    digest: str
    physical: list[str]
    point_in_time: str
    shards: int
    depth: int
    by_position: bool
    begin: int
    after: list[Any] | None
    skip: int
    rules: dict[str, int]
    frequencies: list[int] = field(default_factory=list)

    def cursor(self, key: bytes) -> str:
        """Return the sealed cursor."""
        return seal_cursor([_CURSOR_FORMAT, *astuple(self)], key)

    @classmethod
    def read(cls, cursor: str, key: bytes, digest: str) -> Self:
        """Read a sealed cursor. Raises InvalidInput (`bad_cursor`, `cursor_mismatch`)."""
        try:
            cursor_format, *values = unseal_cursor(cursor, key)
            position = cls(*values) if cursor_format == _CURSOR_FORMAT else None
        except (ValueError, TypeError):
            position = None
        if position is None:
            raise InvalidInput("bad_cursor", "`cursor` was not issued by this search; `*` requests the first page.")
        if position.digest != digest:
            raise InvalidInput(
                "cursor_mismatch",
                "`cursor` belongs to another search: all but `size`, `passage`, `highlight`, `explain` and `fields` "
                "must stay as on the previous page; `*` begins again.",
            )
        return position


def request_digest(request: SearchRequest, indexes: Sequence[str]) -> str:
    """Return the digest of the members that must stay the same on all pages of a search."""
    # Pydantic's JSON would not do: the filter is not validated yet, and may contain values that it refuses.
    members = request.model_dump(exclude=_PAGE_MEMBERS)
    text = json.dumps([list(indexes), members], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
