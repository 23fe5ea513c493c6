"""The rules of indexes as one process knows them: read when a generation is looked up, remembered as long."""

from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from services.curation.matching import CompiledRules
from services.curation.rules import Rules
from services.errors import BackendUnavailable, NotFound, SparsewellError
from services.index_spec import Generation, IndexNames
from services.opensearch.client import AsyncSearchClient
from services.opensearch.system_indexes import (
    StoredCuration,
    newest_curation_call,
    older_curations_call,
    read_older_curations,
    read_stored_curation,
)

CurationReading = StoredCuration | SparsewellError | None


@dataclass(frozen=True, slots=True)
class _CachedCuration:
    read: CurationReading
    compiled: CompiledRules | None


class CurationCache:
    """What was read last of each index that exists, compiled once a version."""

    def __init__(self, search: AsyncSearchClient, names: IndexNames, seconds: float) -> None:
        """A reading takes `seconds` at most."""
        self._search: Final = search
        self._names: Final = names
        self._seconds: Final = seconds
        self._known: dict[str, _CachedCuration] = {}

    async def read(self, index: str, *, near: bool) -> CurationReading:
        """What is stored for an index: the newest rules, None, or why they could not be read (raised by `of`)."""
        try:
            return read_stored_curation(
                await self._search.send(newest_curation_call(self._names, index, self._seconds, near=near))
            )
        except SparsewellError as error:
            return error

    def remember(self, generation: Generation, read: CurationReading) -> None:
        """Keeps what `read` gave for an index."""
        if not isinstance(read, StoredCuration) or not read.of(generation):
            self._known[generation.index] = _CachedCuration(read if isinstance(read, SparsewellError) else None, None)
            return
        known = self._known.get(generation.index)
        if known is not None and known.compiled is not None and isinstance(known.read, StoredCuration):
            before, now = known.read.record, read.record
            if (before.lineage, before.version) == (now.lineage, now.version):
                return
        try:
            rules = Rules.model_validate(read.record.rules)
        except ValidationError:
            unreadable = BackendUnavailable(
                "curation_unreadable",
                "The rules of this index were stored by another version of this service; `curation: false` searches "
                "without them.",
            )
            self._known[generation.index] = _CachedCuration(unreadable, None)
            return
        self._known[generation.index] = _CachedCuration(read, CompiledRules(rules, read.record.version))

    def of(self, generation: Generation) -> CompiledRules | None:
        """The rules of an index, None when it has none.

        Raises what kept them from being read: an answer without them might show what they hide.
        """
        known = self._known.get(generation.index)
        if known is None:
            return None
        if isinstance(known.read, SparsewellError):
            raise known.read
        return known.compiled

    async def earlier(self, generation: Generation, version: int) -> CompiledRules | None:
        """The rules as they were when the first page of a search was made; None for version 0, of no rules.

        Raises NotFound (`cursor_expired`) for those that are not kept any more.
        """
        if not version:
            return None
        call = older_curations_call(self._names, generation.index, generation.lineage, [version], rules=True)
        found = read_older_curations(await self._search.send(call))
        if not found:
            raise NotFound("cursor_expired", "The rules that these pages were made by are gone: begin again.")
        return CompiledRules(Rules.model_validate(found[0].rules), version)

    def forget(self, index: str) -> None:
        """For an index that is gone."""
        self._known.pop(index, None)
