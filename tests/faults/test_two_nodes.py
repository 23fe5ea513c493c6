"""Two OpenSearch nodes: their copies differ, or the node with the primaries hangs or is killed under load."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import httpx
import pytest

from infra.local_servers import LocalSettings
from infra.opensearch.cluster import Cluster, temporary_cluster
from tests.faults.busy import Busy
from tests.faults.door import Door
from tests.faults.history import check
from tests.faults.processes import Running, wait_for
from tests.faults.stack import INDEX, Stack

NewStack = Callable[..., Stack]
RowOf = Callable[..., None]
# Shorter than OpenSearch's detection (three checks of 10 s), and longer than a search's deadline of 5 s.
HANG_SECONDS = 12


pytestmark = pytest.mark.faults_slow


@pytest.fixture(scope="module")
def cluster(local_settings: LocalSettings) -> Iterator[Cluster]:
    """Start two data nodes and a voting node for this module. The last test kills a node."""
    with temporary_cluster(local_settings) as one:
        yield one


def test_a_hit_of_one_copy_is_not_lost_on_another_that_does_not_show_it_yet(
    cluster: Cluster, new_stack: NewStack
) -> None:
    stack = new_stack(opensearch_url=cluster.url, replicas=1, refresh_interval="-1")
    with Door(stack.api()[1]) as door, httpx.Client(base_url=cluster.data[0].url, timeout=30, trust_env=False) as node:
        door.create_index()
        wait_for(lambda: node.get(f"/_cluster/health/{stack.physical}").json()["status"] == "green", 60, "two copies")
        door.post({"a": "harmless"})
        node.get(
            f"/{stack.physical}/_doc/a",
            params={"refresh": "true", "realtime": "false", "preference": "_only_nodes:data-1"},
        ).raise_for_status()
        for name, hits in (("data-1", 1), ("data-2", 0)):
            parameters = {"preference": f"_only_nodes:{name}"}
            assert len(node.get(f"/{stack.physical}/_search", params=parameters).json()["hits"]["hits"]) == hits
        # Requests go to the nodes in turn, so the search and the look-up of its hits reach different nodes. (An empty
        # list also causes a spelling request. With two requests the next search would reach the same node.)
        asking = {"query": "harmless", "mode": "hybrid", "did_you_mean": False}
        shown = 0
        for _ in range(10):
            answer = door.client.post(f"/v1/indexes/{INDEX}/search", json=asking)
            shown += len(answer.json()["hits"])
    assert shown > 0, "what a search found is read, whichever copy is asked for it"


def test_the_node_that_leads_and_holds_primaries_hangs_then_is_killed(
    cluster: Cluster, new_stack: NewStack, row: RowOf
) -> None:
    lead, survivor = cluster.data
    chosen = {"opensearch_url": cluster.url, "shards": 2, "search_timeout": 5.0, "opensearch_timeout": 10.0}
    replicated, single = new_stack(**chosen, replicas=1), new_stack(**chosen, replicas=0)
    with (
        closing(Busy(replicated.api()[1])) as client,
        closing(Busy(single.api()[1])) as other,
        httpx.Client(base_url=survivor.url, trust_env=False, timeout=30) as node,
    ):
        for one, stack in ((client, replicated), (other, single)):
            one.prepare()
            wait_for(lambda one=one, stack=stack: len(stack.states()) == one.kept, 60, "searches see them")  # type: ignore[misc]
        replicated.worker()
        replicated.sweeper()
        assert replicated.settle() == 0
        shards = node.get("/_cat/shards", params={"format": "json", "h": "index,prirep,node"}).json()
        held = {shard["index"] for shard in shards if (shard["prirep"], shard["node"]) == ("p", "data-1")}
        assert {replicated.physical, single.physical} <= held
        assert node.get("/_cat/cluster_manager", params={"format": "json"}).json()[0]["node"] == "data-1"
        with client.busy():
            wait_for(lambda: client.sent >= 50, 60, "documents come in")
            Running(lead.child).pause()
            began, answered, refused = time.monotonic(), len(client.hits), client.refused
            wait_for(lambda: time.monotonic() - began > HANG_SECONDS, 60, "it has hung for a while")
            answered, refused = len(client.hits) - answered, client.refused - refused
            Running(lead.child).resume()
            at = client.sent
            wait_for(lambda: client.sent >= at + 50, 60, "documents come in again")
            Running(lead.child).kill()
            at = client.sent
            wait_for(lambda: client.sent >= at + 100, 120, "they come in again")
        other.search()
        # the result of a plain OpenSearch query for all documents
        left = node.get(f"/{single.physical}/_search", params={"size": 100, "_source": "false"}).json()
        lost = other.door.history.ids - {hit["_id"] for hit in left["hits"]["hits"]}
        assert replicated.settle(120) == 0
        kept = check(client.door.history, replicated.final())
    assert kept.dead == []
    assert len(client.door.history.acknowledged) > 100
    assert max(client.seconds) < 5 + 1, "a search answers within its deadline"
    assert answered > 10, "the other node answers from its own copies while one hangs"
    assert refused <= 2, "a node that hangs costs a search that it was asked, and is left alone"
    row(
        fault="one of two OpenSearch nodes killed: the leading one, with primaries, under load",
        promise="P1",
        protection="a replica, a third voter, several addresses",
        counted="documents lost",
        without=len(lost),
        with_it=len(kept.broken),
    )
    row(
        fault="a shard is gone while searches come in",
        promise="P5",
        protection="a partial answer is an error",
        counted="answers that lack documents",
        without=int(0 < len(left["hits"]["hits"]) < other.kept),
        with_it=client.partial + other.partial,
    )
