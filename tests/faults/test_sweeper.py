"""The sweeper under the memory limit of its container."""

import json
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest

from infra.ports import find_free_port
from tests.faults.conftest import NewStack
from tests.faults.door import Door
from tests.faults.processes import wait_for
from tests.faults.stack import HERE, Stack

DOCUMENTS, TEXT_BYTES = 180, 512 * 1024
LIMIT_MIB = 384


def enqueued(stack: Stack) -> set[str]:
    """Return the ids of the documents in all waiting messages."""
    with closing(stack.broker()) as broker:
        bodies = [json.loads(raw)["body"] for queue in stack.queues for raw in broker.lrange(queue, 0, -1)]
    return {one for body in bodies for one in json.loads(b64decode(body))[1]["ids"]}


def journalled(door: Door, texts: dict[str, str]) -> bool:
    """Send documents, none of which can be enqueued. Return whether OpenSearch took them."""
    answer = door.post(texts)
    assert answer is not None
    return answer.status_code == 202 and answer.json()["queued"] is False


@pytest.mark.faults_slow
def test_long_texts_are_overdue_because_redis_was_away(new_stack: NewStack, row: Callable[..., None]) -> None:
    """90 MB of texts wait for the sweeper, whose container has 384 MiB. No worker runs."""
    text = ("word " * (TEXT_BYTES // 5)).strip()

    def forgotten(*without: str) -> int:
        stack = new_stack(lease_seconds=1.0)
        _, url = stack.api(redis_url=f"redis://127.0.0.1:{find_free_port()}/0")
        with Door(url, timeout=120) as door:
            door.create_index()
            for begin in range(0, DOCUMENTS, 30):
                texts = {f"d{number}": text for number in range(begin, begin + 30)}
                wait_for(partial(journalled, door, texts), 60, "OpenSearch has room for the documents")
        sweeper = stack.run(
            "sweeper",
            str(HERE / "without" / "sweeper.py"),
            *without,
            ready=lambda one: "sweeping every" in one.log,
            may_end=True,
            LIMIT_MIB=LIMIT_MIB,
        )
        failed = "not sweeping" if without else "MemoryError"
        wait_for(
            lambda: len(enqueued(stack)) == DOCUMENTS or failed in sweeper.log or not sweeper.alive,
            180,
            "all documents are enqueued, or the sweeper has failed",
        )
        stack.stop()
        return DOCUMENTS - len(enqueued(stack))

    row(
        fault="Redis is away while 90 MB of long texts come; the sweeper has 384 MiB",
        promise="P1",
        protection="the sweeper reads texts by bytes and writes them as it goes",
        counted="documents that are never enqueued",
        without=forgotten("paging"),
        with_it=forgotten(),
    )
