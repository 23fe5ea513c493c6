"""One of two OpenSearch nodes is killed, the one that leads and holds primaries, while documents come in."""

from collections.abc import Callable
from contextlib import closing

import httpx
import pytest

from faults.busy import Busy
from faults.history import check
from faults.processes import Running, wait_for
from faults.stack import Stack
from infra.opensearch.cluster import temporary_cluster
from infra.settings import LocalSettings

NewStack = Callable[..., Stack]
RowOf = Callable[..., None]


@pytest.mark.faults_slow
def test_the_node_that_leads_and_holds_primaries_is_killed(
    local_settings: LocalSettings, new_stack: NewStack, row: RowOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENSEARCH_JAVA_OPTS", "-XX:TieredStopAtLevel=1")
    with temporary_cluster(local_settings) as cluster:
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
                wait_for(lambda one=one, stack=stack: len(stack.states()) == one.kept, 10, "searches see them")  # type: ignore[misc]
            replicated.worker()
            replicated.sweeper()
            assert replicated.settle() == 0
            shards = node.get("/_cat/shards", params={"format": "json", "h": "index,prirep,node"}).json()
            held = {shard["index"] for shard in shards if (shard["prirep"], shard["node"]) == ("p", "data-1")}
            assert {replicated.physical, single.physical} <= held
            assert node.get("/_cat/cluster_manager", params={"format": "json"}).json()[0]["node"] == "data-1"
            with client.busy():
                wait_for(lambda: client.sent >= 50, 60, "documents come in")
                Running(lead.child).kill()
                at = client.sent
                wait_for(lambda: client.sent >= at + 100, 120, "they come in again")
            other.search()
            # what a client gets that asks OpenSearch for everything in its own way
            left = node.get(f"/{single.physical}/_search", params={"size": 100, "_source": "false"}).json()
            lost = other.door.history.ids - {hit["_id"] for hit in left["hits"]["hits"]}
            assert replicated.settle(120) == 0
            kept = check(client.door.history, replicated.final())
    assert kept.dead == []
    assert len(client.door.history.acknowledged) > 100
    assert max(client.seconds) < 5 + 1, "a search answers within its deadline"
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
