"""OpenSearch is killed or paused, or has a write queue of one."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import orjson
import pytest
from opensearchpy import OpenSearch
from opensearchpy.helpers import bulk

from infra.local_servers import LocalSettings
from infra.opensearch.node import resolve_data_directory
from services.directories import child_account, temporary_state_directory
from services.opensearch.client import Call
from tests.faults.busy import Busy
from tests.faults.door import Door
from tests.faults.history import check
from tests.faults.processes import OpenSearchProcess, wait_for
from tests.faults.stack import Stack

NewStack = Callable[..., Stack]
NewNode = Callable[..., OpenSearchProcess]
RowOf = Callable[..., None]

pytestmark = pytest.mark.faults_slow


@pytest.fixture(scope="module")
def node(local_settings: LocalSettings) -> Iterator[OpenSearchProcess]:
    """Start a node that the tests of this module kill and pause in turn."""
    with temporary_state_directory(
        child_account(local_settings.run_as),
        resolve_data_directory(Path("/tmp")),  # noqa: S108
    ) as directory:
        one = OpenSearchProcess(directory, local_settings)
        one.start()
        yield one
        one.close()


def test_it_is_killed_while_it_writes(node: OpenSearchProcess, new_stack: NewStack, row: RowOf) -> None:
    """The control's index acknowledges writes before they are on disk, a common choice for speed."""
    safe, loose = (new_stack(opensearch_url=node.url, opensearch_timeout=5.0) for _ in range(2))
    with closing(Busy(safe.api()[1])) as client, closing(Busy(loose.api()[1])) as other:
        for one in (client, other):
            one.prepare()
        hasty = {"index.translog.durability": "async", "index.translog.sync_interval": "100s"}
        loose.search.send(Call("PUT", f"/{loose.physical}/_settings", orjson.dumps(hasty)))
        safe.worker()
        safe.sweeper()
        with client.busy(), other.busy():
            wait_for(lambda: min(client.sent, other.sent) >= 200, 60, "documents come in")
            node.kill()
            node.start()
            at = client.sent
            wait_for(lambda: client.sent >= at + 50, 60, "they come in again")
        assert safe.settle() == 0
        kept = check(client.door.history, safe.final())
        lost = other.door.history.ids - loose.states().keys()
    assert kept.dead == []
    row(
        fault="kill -9 of OpenSearch during bulk requests",
        promise="P1",
        protection="acknowledged after the translog is on disk",
        counted="documents lost",
        without=len(lost),
        with_it=len(kept.broken),
    )


def test_it_is_paused_for_twenty_seconds(node: OpenSearchProcess, new_stack: NewStack, row: RowOf) -> None:
    stack = new_stack(opensearch_url=node.url, opensearch_timeout=5.0, search_timeout=2.0)
    _, patient_url = stack.api(search_timeout=60, opensearch_timeout=60)
    with closing(Busy(stack.api()[1])) as client, closing(Busy(patient_url)) as other:
        client.prepare()
        stack.worker()
        stack.sweeper()
        assert stack.settle() == 0
        other.search()
        with client.busy():
            wait_for(lambda: client.sent >= 100, 60, "documents come in")
            node.process.pause()
            paused = time.monotonic()
            search_thread = threading.Thread(target=other.search)
            search_thread.start()
            wait_for(lambda: time.monotonic() - paused > 20, 60, "twenty seconds are over")
            at = client.sent
            refused = client.refused
            node.process.resume()
            wait_for(lambda: client.sent >= at + 100, 60, "documents come in again")
            search_thread.join()
        assert stack.settle() == 0
        kept = check(client.door.history, stack.final())
    assert refused > 0, "searches were answered by an error"
    assert (kept.broken, kept.dead) == ([], [])
    assert client.partial == 0
    row(
        fault="OpenSearch paused for 20 s",
        promise="P5",
        protection="one deadline over all that a search asks",
        counted="searches without an answer 2 s after their deadline",
        without=sum(seconds > 4 for seconds in other.seconds),
        with_it=sum(seconds > 4 for seconds in client.seconds),
    )


def rejected(url: str) -> int:
    """Return how many writes the node refused because its queue was full."""
    stats = httpx.get(f"{url}/_nodes/stats/thread_pool", timeout=30, trust_env=False).json()
    return sum(int(one["thread_pool"]["write"]["rejected"]) for one in stats["nodes"].values())


def naive_writers(url: str, threads: int, requests: int) -> int:
    """Return how many documents opensearch-py's bulk helper loses.

    The test counts its errors instead of raising them.
    """
    failed: list[int] = []

    def write(number: int) -> None:
        with OpenSearch(url) as client:
            for at in range(requests):
                documents = [
                    {"_index": "naive", "_id": f"{number}-{at}-{i}", "text": "harmless " * 500} for i in range(20)
                ]
                failed.append(len(bulk(client, documents, raise_on_error=False, raise_on_exception=False)[1]))

    several = [threading.Thread(target=write, args=(number,)) for number in range(threads)]
    for one in several:
        one.start()
    for one in several:
        one.join()
    return sum(failed)


def test_its_write_queue_has_one_place(new_node: NewNode, new_stack: NewStack, row: RowOf) -> None:
    node = new_node(further={"thread_pool.write.size": 1, "thread_pool.write.queue_size": 1})
    stack = new_stack(opensearch_url=node.url)
    _, url = stack.api()
    stack.worker()
    stack.sweeper()
    with Door(url) as door:
        door.create_index()

        def post(number: int) -> None:
            with Door(url, history=door.history) as mine:
                for at in range(5):
                    texts = {f"{number}-{at}-{i}": f"harmless {number} {at} {i} " + "x " * 2000 for i in range(20)}
                    # as Retry-After asks a client to do
                    for _ in range(20):
                        answer = mine.post(texts)
                        if answer is not None and answer.status_code == 202 and not answer.json()["rejected"]:
                            break
                        time.sleep(0.2)

        several = [threading.Thread(target=post, args=(number,)) for number in range(8)]
        for one in several:
            one.start()
        for one in several:
            one.join()
        assert rejected(node.url) > 0, "the queue was full"
        assert len(door.history.ids) == 8 * 5 * 20
        assert stack.settle() == 0
        kept = check(door.history, stack.final())
    assert kept.dead == []
    row(
        fault="a write queue of one place: item-level 429",
        promise="P1",
        protection="each item of a bulk answer is judged, and sent again where that helps",
        counted="documents lost",
        without=naive_writers(node.url, 8, 5),
        with_it=len(kept.broken),
    )
