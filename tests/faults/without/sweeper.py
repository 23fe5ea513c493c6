"""Run a sweeper in limited memory, without some protections for the controls: `sweeper.py NAME ...`

paging            a page of overdue documents is read whole, and all its writes are made before the first is sent

The environment variable LIMIT_MIB limits the memory for data of the process (RLIMIT_DATA), as a container would.
"""

import os
import resource
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import indexer.sweeper
from cli.serve import sweeper
from indexer.sweeper import Sweeper
from services.index_spec import Generation
from services.opensearch.journal import get_documents_call, read_stored_documents
from services.opensearch.stored_document import StoredDocument


def paging() -> None:
    def read_whole(
        self: Sweeper, generation: Generation, found: Sequence[StoredDocument]
    ) -> Iterator[list[StoredDocument]]:
        if found:
            call = get_documents_call(generation.physical, [stored.id for stored in found])
            yield read_stored_documents(self.search.send(call))

    def write_at_once(client: Any, writes: Sequence[Any], *limits: Any) -> Any:
        lines = [write.lines() for write in writes]
        assert len(lines) == len(writes)
        return write_in_parts(client, writes, *limits)

    write_in_parts = indexer.sweeper.write_bulk
    indexer.sweeper.write_bulk = write_at_once
    Sweeper._read = read_whole  # type: ignore[method-assign]  # noqa: SLF001


PROTECTIONS = {one.__name__: one for one in (paging,)}


def main(names: Sequence[str]) -> None:
    limit = int(os.environ["LIMIT_MIB"]) * 1024**2
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for name in names:
        PROTECTIONS[name]()
    sweeper("info")


if __name__ == "__main__":
    main(sys.argv[1:])
