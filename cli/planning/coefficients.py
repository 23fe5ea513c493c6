"""The coefficients of some machines, as `python -m benchmarks.plan_coefficients FILE` writes them.

SHIPPED are those of the machine that the committed results are from.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from cli.planning.costs import Coefficients, Cost, Line, SearchCost
from cli.planning.plan import Working
from services.errors import ConfigurationError

SHIPPED = Path(__file__).with_name("measured.json")


def read(path: Path, speed: float = 1) -> tuple[Coefficients, Working, str]:
    """The coefficients, for cores of another speed, and what they were measured on.

    Raises ConfigurationError (`bad_coefficients`).
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        found, working, source = _parsed(kept["coefficients"]), Working(**kept["working"]), str(kept["measured_on"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError("bad_coefficients", f"{path} holds no coefficients: {error}.") from None
    search = {
        mode: SearchCost(cost.node.faster(speed), cost.api / speed, cost.clock.faster(speed), cost.tail)
        for mode, cost in found.search.items()
    }
    faster = replace(
        working,
        encode_ms_a_piece=working.encode_ms_a_piece / speed,
        index_ms_a_piece=working.index_ms_a_piece / speed,
        journal_ms_a_document=working.journal_ms_a_document / speed,
    )
    return replace(found, search=search), faster, source


def _parsed(written: dict[str, Any]) -> Coefficients:
    """The inverse of `asdict`."""
    return Coefficients(
        written["pieces_a_word"],
        Line(**written["stored"]),
        Line(**written["searched"]),
        {mode: _search_cost(cost) for mode, cost in written["search"].items()},
        written["at_random"],
    )


def _search_cost(written: dict[str, Any]) -> SearchCost:
    return SearchCost(Cost(**written["node"]), written["api"], Cost(**written["clock"]), written["tail"])
