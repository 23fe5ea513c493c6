"""The ways to ask for a sparse list that are compared: whole, pruned, in two phases, both; as bodies and in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cli.relevance.exact import ExactIndex
from services.opensearch.queries import body, rescored, sparse_query
from services.pruning import pruned, split
from services.query_table import QueryVector

SECONDS = 60.0


@dataclass(frozen=True)
class Way:
    """Which share of the heaviest weight is pruned, and the two phases; a window of 0: one phase."""

    prune: float = 0.0
    threshold: float = 0.0
    window: int = 0

    def parts(self, query: QueryVector) -> tuple[QueryVector, QueryVector]:
        """What finds documents, and what is added to the best."""
        return split(pruned(query, self.prune), self.threshold if self.window else 0.0)

    def search(self, query: QueryVector, size: int) -> dict[str, Any]:
        """The body that the API makes."""
        head, tail = self.parts(query)
        search = body(sparse_query(head), size, False, SECONDS)
        return rescored(search, tail, max(self.window, size)) if tail.ids else search

    def in_one_phase(self) -> "Way":
        """What is asked for when heavy pieces find too few."""
        return replace(self, window=0)

    def ranking(self, index: ExactIndex, query: QueryVector, size: int) -> list[tuple[str, float]]:
        """The list of an index of one shard, in memory."""
        head, tail = self.parts(query)
        every = head.by_id() | tail.by_id()
        if not tail.ids:
            return index.search(every, size)
        heavy = index.search(head.by_id(), max(self.window, size))
        if len(heavy) < size:
            return index.search(every, size)
        found = {name for name, _ in heavy}
        return [(name, score) for name, score in index.search(every, len(index.names)) if name in found][:size]


SHARES: Final = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5)
ONE_PHASE: Final[Mapping[str, Way]] = {"whole": Way(), **{f"pruned {share}": Way(share) for share in SHARES}}
TWO_PHASES: Final[Mapping[str, Way]] = {
    f"two phases {threshold}, {window}": Way(0.0, threshold, window)
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7)
    for window in (50, 200, 1000)
}
BOTH: Final[Mapping[str, Way]] = {
    f"pruned {share}, two phases {threshold}, {window}": Way(share, threshold, window)
    for share, threshold, window in ((0.2, 0.4, 200), (0.2, 0.5, 200), (0.2, 0.6, 200), (0.2, 0.6, 1000))
}
WAYS: Final[Mapping[str, Way]] = {**ONE_PHASE, **TWO_PHASES, **BOTH}
# What is timed: each takes minutes at half a million documents, and thresholds and windows beside these lost the same.
TIMED: Final = (
    "whole", "pruned 0.2", "pruned 0.3", "two phases 0.4, 200", "two phases 0.5, 200", "two phases 0.6, 200",
    "pruned 0.2, two phases 0.5, 200", "pruned 0.2, two phases 0.6, 200",
)  # fmt: skip
