"""From the decision to swap to the end: each step may be done twice, and by whoever finds it undone.

The old generation is made read-only, what was written to it last is carried, then the alias is swapped. A write that
meets the block is sent again by whoever sends it (`services.opensearch.bulk`), for longer than this takes, and the
alias leads it to the new generation; OpenSearch's answer says so, and the sender asks the new encoder for its vectors.
The block is not lifted again: after the decision it only goes forward (but for a target that somebody deleted by hand,
see `rescue`).
"""

from indexer.reindex.follower import Follower
from services.errors import BackendUnavailable, NotFound
from services.opensearch.client import Call, SyncSearch
from services.opensearch.generations import block_call, read_generations, swap_call
from services.opensearch.journal import now_ms
from services.opensearch.reindex_record import ReindexRecord


def decide(follower: Follower) -> None:
    """The point of no return. Raises Conflict (`reindex_taken_over`) when somebody else decided something."""
    record = follower.record
    shards = follower.shards(record.target.physical)
    record.target_checkpoints = {number: state.safe for number, state in shards.items()}
    record.step = "swapping"
    follower.records.save(record)


def finish(follower: Follower) -> None:
    """Goes on from wherever a decided swap is; at the end the source is retired and the target has everything."""
    record, records, search = follower.record, follower.records, follower.search
    if record.step == "swapping":
        require_same(search, record)
        blocked = search.send(block_call(record.source))
        # (of an index that was blocked before OpenSearch lists nothing and confirms nothing)
        if not blocked["acknowledged"] or (blocked["indices"] and not blocked["shards_acknowledged"]):
            raise BackendUnavailable(
                "block_not_acknowledged", "The old generation could not be made read-only in time."
            )
        follower.drain()
        search.send(swap_call(record.source, record.target))
        record.step, record.swapped_at = "swapped", now_ms()
        records.save(record)


def require_same(search: SyncSearch, record: ReindexRecord) -> None:
    """Raises NotFound (`generation_replaced`) unless both generations are still the very ones of the record.

    An index may have been deleted and made again under the same names.
    """
    names = f"{record.source.physical},{record.target.physical}"
    call = Call(
        "GET", f"/{names}/_mapping", params={"filter_path": "*.mappings._meta.sparsewell", "ignore_unavailable": "true"}
    )
    if {one.token for one in read_generations(search.send(call))} != {record.source.token, record.target.token}:
        raise NotFound("generation_replaced", f"The index {record.index!r} was deleted, or one of its generations was.")
