"""Documents that rules put at a place, among those that were found.

A pinned document has its place in the whole ranking, whatever the page; all others follow each other around it.
"""

from dataclasses import dataclass
from typing import Any

from query_api.search.asked import Asked, Found
from query_api.search.bodies import HYBRID, boosted, keyword_query, needed_source
from query_api.search.curated import Curated
from query_api.search.engine import whole
from query_api.search.own_terms import read_own_terms
from services.curation.placing import placed, places
from services.opensearch.filter_clauses import ALIVE
from services.opensearch.queries import Plan, body, sparse_query


@dataclass(frozen=True, slots=True)
class Pins:
    """Pinned documents by the places that they are to have in the whole ranking, and the hits before the page."""

    by_place: dict[int, Found]
    begin: int

    def placed(self, asked: Asked, curated: Curated, found: list[Found]) -> list[Found]:
        """The page: what was found around them. A part ends when the last of them was shown too."""
        part, wanted = asked.part, self.by_place
        if part is not None:
            wanted = dict(zip(places(list(wanted), part.ranked), wanted.values(), strict=True))
        coming = {place - self.begin: one for place, one in wanted.items() if place > self.begin}
        page = placed(found, coming, asked.request.size)
        for one in page:
            if one.pinned and asked.request.mode == "hybrid":
                one.score = curated.fused.get(one.id, 0.0)
        if part is not None:
            shown = sum(one.pinned for one in page)
            part.begin += shown
            if shown < len(coming):
                part.end = None
        return page


async def prepared(asked: Asked, curated: Curated) -> Pins | None:
    """What rules need before the lists are asked for; None if nothing is pinned."""
    await read_own_terms(asked, curated)
    if asked.request.sort or asked.request.browses:
        curated.unplace("sorted")
    return await _read_pins(asked, curated)


async def _read_pins(asked: Asked, curated: Curated) -> Pins | None:
    """The pinned documents, None if there are none; the lists are left as much room on the page as these leave.

    They are read by id, with what holds for every hit: one that was deleted, or that the request does not ask for, is
    not shown and takes no place.
    """
    pins, part = curated.matched.pins, asked.part
    if not pins:
        return None
    size, begin = asked.request.size, 0 if part is None else part.begin
    found = await _read(asked, list(pins))
    for one, pin in pins.items():
        if one not in found and begin < pin.place <= begin + size:
            curated.miss(one)
    by_place = {pins[one].place: each for one, each in found.items()}
    asked.pinned = sum(begin < place <= begin + size for place in by_place)
    if part is not None:
        part.pins = sum(place <= begin for place in by_place)
        part.last_pin = max(by_place, default=0)
    return Pins(dict(sorted(by_place.items())), begin)


async def _read(asked: Asked, ids: list[str]) -> dict[str, Found]:
    """Those that are there, by id, each with its own score in every list that matches it."""
    mode = asked.request.mode
    modes = HYBRID if mode == "hybrid" else (mode,)
    plans = [Plan(asked.generation.physical, _body(asked, one, ids, first=one == modes[0])) for one in modes]
    found: dict[str, Found] = {}
    for name, answer in zip(modes, await asked.engine.lists(plans), strict=True):
        for hit in whole(answer, asked.watch):
            one = found.setdefault(hit["_id"], Found(hit["_id"], hit["_score"], {}, index=hit["_index"], pinned=True))
            one.source = hit.get("_source", one.source)
            one.boosts = hit.get("matched_queries", ())
            if hit["_score"] > 0:
                one.scores[name] = hit["_score"]
    asked.watch.lap("opensearch")
    return found


def _body(asked: Asked, mode: str, ids: list[str], *, first: bool) -> dict[str, Any]:
    query = {
        "bool": {
            "should": [sparse_query(asked.query, asked.score_by) if mode == "sparse" else keyword_query(asked)],
            "filter": [{"ids": {"values": ids}}, ALIVE, *asked.selection.clauses],
            "must_not": [{"ids": {"values": list(asked.left_out)}}],
        }
    }
    source = needed_source(asked.request) if first and not asked.request.is_read_later else False
    return boosted(asked, body(query, len(ids), source, asked.timeout))
