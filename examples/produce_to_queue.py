"""Bulk ingestion through the queue: a producer without HTTP and without sparsewell.

    python examples/produce_to_queue.py redis://127.0.0.1:16379/0 INDEX documents.jsonl [--with celery|redis]

It pushes the same messages as a Celery client (`pip install "celery[redis]"`), or with only a Redis client (`pip
install redis`), for producers without Celery or in other languages. docs/queue.md explains both.
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
    """Yield a file's documents as message bodies, see docs/contracts/sparsewell.ingest.v1.schema.json."""
    offset = 0
    with path.open(encoding="utf-8") as lines:
        documents = (json.loads(line) for line in lines if line.strip())
        while batch := list(islice(documents, DOCUMENTS_PER_MESSAGE)):
            yield {
                "contract": TASK_NAME,
                "index": index,
                # All messages belong to one job: GET /v1/jobs/{job} shows its progress and rejected documents.
                "job": job,
                # The version of documents without a version, so that a second delivery changes nothing.
                "sent_at": time.time_ns() // 1000,
                "offset": offset,
                "documents": batch,
            }
            offset += len(batch)


def push_with_celery(url: str, bodies: Iterator[dict[str, Any]]) -> None:
    """Push messages as a Celery client, which needs the task's name and not its code."""
    from celery import Celery

    with Celery(broker=url, set_as_current=False) as app:
        for body in bodies:
            # Tools and logs show kwargsrepr; its default is all documents of the message.
            app.send_task(TASK_NAME, kwargs=body, queue=QUEUE_NAME, ignore_result=True, kwargsrepr="{...}")


def push_with_redis(url: str, bodies: Iterator[dict[str, Any]]) -> None:
    """Push messages with LPUSH: Celery's message protocol 2 in kombu's JSON envelope."""
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
    """Push the file and print the job's id."""
    parser = argparse.ArgumentParser(description="Push documents onto sparsewell's bulk queue.")
    parser.add_argument("redis_url")
    parser.add_argument("index")
    parser.add_argument("file", type=Path)
    parser.add_argument("--with", dest="client", choices=("celery", "redis"), default="celery")
    arguments = parser.parse_args()
    job = uuid.uuid4().hex
    push = {"celery": push_with_celery, "redis": push_with_redis}[arguments.client]
    push(arguments.redis_url, iter_messages(arguments.file, arguments.index, job))
    print(job)


if __name__ == "__main__":
    main()
