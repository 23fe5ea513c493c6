"""OpenSearch can store only a part of a snapshot: test its own response and the product's handling of it."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from services.opensearch.client import SyncSearchClient
from services.opensearch.paging import (
    close_point_in_time_call,
    open_point_in_time_call,
)
from tests.faults.door import Door
from tests.faults.processes import OpenSearchProcess
from tests.faults.stack import INDEX, Stack

NewNode = Callable[..., OpenSearchProcess]
NewStack = Callable[..., Stack]
RowOf = Callable[..., None]
SHARDS = 3


def test_there_is_room_for_some_shards_of_a_snapshot(new_node: NewNode, new_stack: NewStack, row: RowOf) -> None:
    node = new_node(further={"search.max_open_pit_context": SHARDS + 1})
    stack = new_stack(opensearch_url=node.url, shards=SHARDS)
    request = {"query": "harmless", "mode": "lexical", "cursor": "*", "size": 5}
    with Door(stack.api()[1]) as door, closing(SyncSearchClient(stack.settings)) as search:
        door.create_index()
        door.post({f"d{n}": f"harmless {n}" for n in range(50)})
        assert len(stack.documents("state")) == 50  # (this also refreshes)
        first = door.client.post(f"/v1/indexes/{INDEX}/search", json=request).raise_for_status().json()
        naive = search.send(replace(open_point_in_time_call([stack.physical], 60), params={"keep_alive": "1m"}))
        lacking = naive["_shards"]["failed"]
        search.send(close_point_in_time_call(naive["pit_id"]))
        paged = door.client.post(f"/v1/indexes/{INDEX}/search", json=request)
        exported = door.client.get(f"/v1/indexes/{INDEX}/export")
        for refused in (paged, exported):
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_snapshots")
        last = door.client.post(f"/v1/indexes/{INDEX}/search", json=request | {"cursor": first["cursor"], "size": 100})
        assert len(last.raise_for_status().json()["hits"]) == 45, "who holds one is not harmed"
        freed = door.client.post(f"/v1/indexes/{INDEX}/search", json=request)
        assert freed.status_code == 200, "what was refused holds nothing"
    row(
        fault="there is room for some shards of a snapshot only",
        promise="P5",
        protection="a snapshot is taken whole or not at all (429)",
        counted="shards that pages and exports would lack without a word",
        without=lacking,
        with_it=0,
    )
