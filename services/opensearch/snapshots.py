"""Points in time of OpenSearch (2.4 and later): what pages and exports see stands still while writes go on."""

from collections.abc import Sequence
from typing import Any

import orjson

from services.opensearch.client import Call


def open_call(physical: Sequence[str], seconds: float, *, near: bool = False) -> Call:
    """Takes a snapshot of some generations, kept for so long after each use; `near` as in `queries.Plan.options`.

    It is whole or an error. Left to itself OpenSearch answers 200 with a snapshot of some of the shards when there is
    no room for all (`search.max_open_pit_context`), and every search of it would lack the others' documents.
    """
    params = {"keep_alive": _kept(seconds), "allow_partial_pit_creation": "false"}
    if near:
        params["preference"] = "_local"
    return Call("POST", f"/{','.join(physical)}/_search/point_in_time", params=params)


def close_call(snapshot: str) -> Call:
    """Lets go of it. Raises ValueError for the word that OpenSearch takes for all there are."""
    if snapshot == "_all":
        raise ValueError("a snapshot is closed by its id")
    return Call("DELETE", "/_search/point_in_time", orjson.dumps({"pit_id": [snapshot]}))


def within(snapshot: str, seconds: float) -> dict[str, Any]:
    """The member of a search's body that makes it one of the snapshot, which is then kept for `seconds` more.

    Such a search names no index and no preference: the snapshot has both.
    """
    return {"pit": {"id": snapshot, "keep_alive": _kept(seconds)}}


def _kept(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"
