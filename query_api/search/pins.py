"""Documents that rules put at a place, among those that were found.

A pinned document has its place in the whole ranking, whatever the page; all others follow each other around it.
"""

from dataclasses import dataclass
from typing import Any

from query_api.search.asked import Asked, Found
from query_api.search.bodies import HYBRID, boosted, explained, keyword_query, needed_source
from query_api.search.curated import Curated
from query_api.search.engine import whole
from query_api.search.own_terms import read_own_terms
from services.curation.placing import placed
from services.opensearch.filter_clauses import ALIVE
from services.opensearch.queries import Plan, body, sparse_query


@dataclass(frozen=True, slots=True)
class Pins:
    """Pinned documents by their places, counted from 1 where the page begins; some may lie behind it."""

    by_place: dict[int, Found]

    def placed(self, asked: Asked, curated: Curated, found: list[Found]) -> list[Found]:
        """The page: what was found around them."""
        page = placed(found, self.by_place, asked.request.size)
        for one in page:
            if one.pinned:
                one.score = curated.fused.get(one.id, 0.0) if asked.request.mode == "hybrid" else one.score
                if asked.part is not None:
                    asked.part.begin += 1
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
    places = {pins[one].place - begin: each for one, each in found.items()}
    asked.pinned = sum(0 < place <= size for place in places)
    if part is not None:
        part.pins = sum(place <= 0 for place in places)
    return Pins({place: one for place, one in places.items() if place > 0})


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
                one.explanation = hit.get("_explanation", one.explanation)
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
    search = body(query, len(ids), needed_source(asked.request) if first else False, asked.timeout)
    return explained(asked, mode, boosted(asked, search))
