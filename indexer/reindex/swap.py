"""From the decision to swap to the end: each step may be done twice, and by whoever finds it undone.

The old generation is made read-only, what was written to it last is carried, then the alias is swapped. A write that
meets the block is sent again by whoever sends it (`services.opensearch.bulk`), for longer than this takes, and the
alias leads it to the new generation. The block is never lifted: after the decision it only goes forward.
"""

import time

from indexer.reindex.follower import Follower
from services.opensearch.changes import read_shards, shards_call
from services.opensearch.generations import block_call, swap_call
from services.opensearch.journal import now_ms, pending_call, read_hits

# Workers and APIs remember which generation an alias points to for two seconds (REMEMBERED_SECONDS).
FORGOTTEN_SECONDS = 2.5
_NUDGED = 10_000


def decide(follower: Follower) -> None:
    """The point of no return. Raises Conflict (`reindex_taken_over`) when somebody else decided something."""
    record = follower.record
    shards = read_shards(follower.search.send(shards_call(record.target.physical)))
    record.target_checkpoints = {number: state.safe for number, state in shards.items()}
    record.step = "swapping"
    follower.records.save(record)


def finish(follower: Follower) -> None:
    """Goes on from wherever a decided swap is; at the end the source is retired and the target has everything."""
    record, records, search = follower.record, follower.records, follower.search
    if record.step == "swapping":
        search.send(block_call(record.source))
        follower.drain()
        search.send(swap_call(record.source, record.target))
        _nudge(follower)
        record.step, record.swapped_at = "swapped", now_ms()
        records.save(record)


def _nudge(follower: Follower) -> None:
    """Asks for vectors of what waits: messages of the last seconds may have been read with the old generation in mind.

    They would come again when their leases run out, two minutes later.
    """
    time.sleep(FORGOTTEN_SECONDS)
    call = pending_call(follower.record.target.physical, _NUDGED)
    waiting = [stored.id for stored in read_hits(follower.search.send(call))]
    if waiting:
        follower.dispatch(waiting)
