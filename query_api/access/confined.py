"""OpenSearch as a caller with a filter of its own reaches it: see `services.opensearch.confinement`."""

from typing import Any

from services.errors import Forbidden, InvalidInput
from services.filters.reading import FilterLimits, read_filter
from services.filters.tree import Filter
from services.index_spec import Generation
from services.opensearch.client import AsyncSearch, Call
from services.opensearch.confinement import Confinement


class ConfinedSearch(AsyncSearch):
    """Sends what another client sends, confined. It has no connections of its own."""

    def __init__(self, everything: AsyncSearch, within: Confinement) -> None:
        self._everything = everything
        self._within = within

    async def send(self, call: Call) -> Any:
        return self._within.answered(call, await self._everything.send(self._within.confined(call)))

    async def close(self) -> None:
        """They are the other's."""


def own_filter(value: Any, generation: Generation, limits: FilterLimits) -> Filter:
    """A caller's filter as one of an index. Raises Forbidden (`key_filter_unfit`): without it nothing is shown."""
    try:
        return read_filter(value, generation.spec.fields, limits)
    except InvalidInput as error:
        raise Forbidden(
            "key_filter_unfit",
            f"The filter of this key does not fit the index {generation.index!r}, so nothing of it is shown: "
            f"{error.detail}",
        ) from None
