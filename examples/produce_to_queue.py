"""Pushes documents onto the bulk queue from another process, without HTTP and without sparsewell installed.

    python examples/produce_to_queue.py redis://127.0.0.1:16379/0 INDEX documents.jsonl [--with celery|redis]

Two ways to say the same: as a Celery client (`pip install "celery[redis]"`), and with nothing but a Redis client
(`pip install redis`), for producers that do not want Celery or are not written in Python. docs/queue.md explains both.
"""

import argparse
import base64
import json
import time
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

TASK_NAME = "sparsewell.ingest.v1"
QUEUE_NAME = "sparsewell.ingest"
DOCUMENTS_PER_MESSAGE = 500


def iter_messages(path: Path, index: str, job: str) -> Iterator[dict[str, Any]]:
    """The file's documents as message bodies; docs/contracts/sparsewell.ingest.v1.schema.json describes one."""
    sent = 0
    with path.open(encoding="utf-8") as lines:
        documents = (json.loads(line) for line in lines if line.strip())
        while batch := list(islice(documents, DOCUMENTS_PER_MESSAGE)):
            yield {
                "contract": TASK_NAME,
                "index": index,
                # all messages count for one job: GET /v1/jobs/{job} shows how far it is and what was refused
                "job": job,
                # the version of documents without one: a message that is delivered twice changes nothing
                "sent_at": time.time_ns() // 1000,
                "offset": sent,
                "documents": batch,
            }
            sent += len(batch)


def push_with_celery(url: str, bodies: Iterator[dict[str, Any]]) -> None:
    """As a Celery client: the task is named, its code need not be here."""
    from celery import Celery

    with Celery(broker=url, set_as_current=False) as app:
        for body in bodies:
            # kwargsrepr: what tools and logs show of the message; by default it would be the documents
            app.send_task(TASK_NAME, kwargs=body, queue=QUEUE_NAME, ignore_result=True, kwargsrepr="{...}")


def push_with_redis(url: str, bodies: Iterator[dict[str, Any]]) -> None:
    """With a bare LPUSH: Celery's message protocol 2 in kombu's JSON envelope."""
    import redis

    client = redis.Redis.from_url(url)
    for body in bodies:
        task_id = str(uuid.uuid4())
        payload = json.dumps([[], body, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
        envelope = {
            "body": base64.b64encode(payload.encode()).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"lang": "py", "task": TASK_NAME, "id": task_id, "root_id": task_id, "kwargsrepr": "{...}"},
            "properties": {
                "correlation_id": task_id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": QUEUE_NAME},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
        client.lpush(QUEUE_NAME, json.dumps(envelope))
    client.close()


def main() -> None:
    """Pushes the file and prints the job's name."""
    parser = argparse.ArgumentParser(description="Push documents onto sparsewell's bulk queue.")
    parser.add_argument("redis_url")
    parser.add_argument("index")
    parser.add_argument("file", type=Path)
    parser.add_argument("--with", dest="client", choices=("celery", "redis"), default="celery")
    given = parser.parse_args()
    job = uuid.uuid4().hex
    push = {"celery": push_with_celery, "redis": push_with_redis}[given.client]
    push(given.redis_url, iter_messages(given.file, given.index, job))
    print(job)


if __name__ == "__main__":
    main()
