"""The two phases of a sparse list: what finds documents, what is added to the scores of the best, when that fails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from query_api.search.asked import Asked
from query_api.search.request import TwoPhaseSearch
from services.pruning import split
from services.query_table import QueryVector

# index.max_rescore_window
_LARGEST_WINDOW = 10_000
_NOTHING = QueryVector((), (), 0)


@dataclass(frozen=True, slots=True)
class Phases:
    """`head` finds documents; `tail` is added to the scores of the best `window` of a shard, and empty in one phase."""

    head: QueryVector
    tail: QueryVector = _NOTHING
    window: int = 0


def phases(asked: Asked, size: int) -> Phases:
    """How a list of `size` hits is made. A query of heavy pieces alone is whole in one phase.

    So is a list that goes as deep as the matches do (OpenSearch does not go on after a hit of a list that it rescored),
    and one under a filter: heavy pieces find too few of what it leaves, and asking again took 1.8 times as long as one
    phase does (a filter of one in 1,000 of 60,000 documents, docs/decisions/0151).
    """
    wanted, settings, part = asked.request.two_phase, asked.parts.settings, asked.part
    if wanted is False or asked.request.filter is not None or (part is not None and part.by_place):
        return Phases(asked.query)
    given = wanted if isinstance(wanted, TwoPhaseSearch) else TwoPhaseSearch.model_validate({})
    head, tail = split(asked.query, given.threshold or settings.two_phase_threshold)
    # (a list that is fused is the same for every part of the ranking)
    reach = size if part is None or asked.request.is_ranked_here else part.begin + size + 1
    return Phases(head, tail, min(max(given.window or settings.two_phase_window, reach), _LARGEST_WINDOW))


def too_few(plan: Mapping[str, Any], hits: Sequence[object]) -> bool:
    """Whether documents are missing that only light pieces find: then the list is asked for again, in one phase.

    Heavy pieces that find so few have short postings: what they cost is little.
    """
    return "rescore" in plan and len(hits) < plan["size"]


def in_one_phase(asked: Asked) -> Asked:
    """The same search without a second phase."""
    return replace(asked, request=asked.request.model_copy(update={"two_phase": False}))
