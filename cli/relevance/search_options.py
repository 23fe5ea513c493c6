"""The searches of an evaluation, as the options of `sparsewell eval` name them.

A search is a name with the members of a search request, so that every parameter of the API can be measured.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Any

import orjson

from cli.relevance.metrics import MEASURES
from services.errors import InvalidInput

MODES = ("sparse", "lexical", "hybrid")
# The members that the evaluation sets itself.
_FIXED_MEMBERS = frozenset({"query", "size", "cursor", "offset"})


def parse_modes(text: str) -> list[str]:
    """Parse a comma-separated list of modes. Raises InvalidInput (`unknown_mode`)."""
    modes = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise InvalidInput("unknown_mode", f"--modes takes a list of {', '.join(MODES)}, not {text!r}.")
    return modes


def parse_weights(text: str) -> dict[str, float]:
    """Parse fusion weights `SPARSE,LEXICAL`. Raises InvalidInput (`bad_weights`)."""
    try:
        sparse, lexical = (float(part) for part in text.split(","))
    except ValueError:
        sparse = lexical = -1.0
    if not (0 <= sparse < float("inf") and 0 <= lexical < float("inf") and sparse + lexical > 0):
        raise InvalidInput("bad_weights", f"--weights takes two numbers as in .7,.3 (sparse, lexical), not {text!r}.")
    return {"sparse": sparse, "lexical": lexical}


def parse_searches(
    modes: Sequence[str], weights: Mapping[str, float] | None, more: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the searches to measure: the members of the request by name. `more`: NAME={members in JSON} each.

    Raises InvalidInput (`bad_search`).
    """
    searches: dict[str, dict[str, Any]] = {mode: {"mode": mode} for mode in modes}
    if weights and "hybrid" in searches:
        searches["hybrid"]["weights"] = dict(weights)
    for text in more:
        name, _, members = text.partition("=")
        name = name.strip()
        if not name or name in searches:
            raise InvalidInput("bad_search", f"--search takes NAME={{...}} with a new name, not {text[:80]!r}.")
        found = _parse_object(members, "bad_search", f"--search {name}")
        if fixed := found.keys() & _FIXED_MEMBERS:
            raise InvalidInput("bad_search", f"--search {name} must leave out {', '.join(sorted(fixed))}.")
        searches[name] = {"mode": "hybrid"} | found
    return searches


def parse_spec(text: str) -> dict[str, Any]:
    """Parse the declaration of an index. Raises InvalidInput (`bad_spec`)."""
    return _parse_object(text, "bad_spec", "--spec")


def parse_thresholds(texts: Sequence[str], searches: Container[str]) -> list[tuple[str, str, float]]:
    """Parse SEARCH:MEASURE=VALUE each. Return search, measure and least value.

    Raises InvalidInput (`bad_threshold`).
    """
    thresholds = []
    for text in texts:
        figure, _, least = text.rpartition("=")
        search, _, measure = figure.rpartition(":")
        try:
            value = float(least)
        except ValueError:
            value = -1.0
        if search not in searches or measure not in MEASURES or not 0 <= value <= 1:
            raise InvalidInput(
                "bad_threshold",
                f"--fail-below takes SEARCH:MEASURE=VALUE with a measured search, one of {', '.join(MEASURES)} and a "
                f"number from 0 to 1, not {text[:80]!r}.",
            )
        thresholds.append((search, measure, value))
    return thresholds


def _parse_object(text: str, code: str, option: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(code, f"{option} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidInput(code, f'{option} takes a JSON object, as in {{"mode": "hybrid"}}.')
    return value
