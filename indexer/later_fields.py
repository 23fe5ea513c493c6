"""Adds to generations that an older version made the fields that this one writes: their mappings are strict."""

from collections import Counter
from dataclasses import dataclass, field

from services.index_spec import Names
from services.opensearch.client import SyncSearch
from services.opensearch.generations import list_call, read_written
from services.opensearch.mapping import add_later_fields_call
from services.settings import Settings


@dataclass
class LaterFields:
    """Once for each generation; where the fields are there already, nothing changes."""

    settings: Settings
    search: SyncSearch
    _done: set[str] = field(default_factory=set)

    def add(self) -> Counter[str]:
        """Counts the generations that were seen to. Raises BackendUnavailable or Overloaded."""
        counts: Counter[str] = Counter()
        for generation in read_written(self.search.send(list_call(Names(self.settings.index_prefix)))):
            if generation.physical not in self._done:
                self.search.send(add_later_fields_call(generation.physical))
                self._done.add(generation.physical)
                counts["generations"] += 1
        return counts
