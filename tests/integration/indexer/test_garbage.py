"""An invalid queue entry does not stop a worker."""

from collections.abc import Callable

import httpx
import redis

from infra.processes import ChildProcess
from services.queue.lanes import INGEST_QUEUE, interactive_queue

GARBAGE = (b"not json", b"[]", b"{}", b"\xff\xfe", b'{"body": 5, "properties": {}}')


def test_the_worker_goes_on_after_items_that_are_no_messages(
    api: httpx.Client, worker: ChildProcess, redis_url: str, eventually: Callable[..., None]
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        for item in GARBAGE:
            client.lpush(INGEST_QUEUE, item)
            client.lpush(interactive_queue("standin"), item)
    api.put("/v1/indexes/docs")
    job = api.put("/v1/indexes/docs/documents/a", json={"text": "x"}).json()["job"]["id"]
    eventually(lambda: api.get(f"/v1/jobs/{job}").json()["states"]["encoded"] == 1, 60, "the document is encoded")
    assert worker.alive()
