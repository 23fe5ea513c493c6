"""Run a sweeper in limited memory, without some protections for the controls: `sweeper.py NAME ...`

paging            a page of overdue documents is read whole, and all its writes are made before the first is sent

The environment variable LIMIT_MIB limits the memory for data of the process (RLIMIT_DATA), as a container would.
"""

import os
import resource
import sys
from collections.abc import Sequence
from typing import Any

import indexer.sweeper
from cli.serve import sweeper
from services.opensearch.stored_document import WholeDocumentPages


def paging() -> None:
    def take_all(self: WholeDocumentPages, ids: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        return ids, ()

    def write_at_once(client: Any, writes: Sequence[Any], *limits: Any) -> Any:
        lines = [write.lines() for write in writes]
        assert len(lines) == len(writes)
        return write_in_parts(client, writes, *limits)

    write_in_parts = indexer.sweeper.write_bulk
    indexer.sweeper.write_bulk = write_at_once
    WholeDocumentPages.take = take_all  # type: ignore[method-assign]


PROTECTIONS = {one.__name__: one for one in (paging,)}


def main(names: Sequence[str]) -> None:
    limit = int(os.environ["LIMIT_MIB"]) * 1024**2
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for name in names:
        PROTECTIONS[name]()
    sweeper("info")


if __name__ == "__main__":
    main(sys.argv[1:])
