"""The same request arrives twenty times at once, as when senders, proxies and queues all retry."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

import httpx

from tests.faults.door import Door
from tests.faults.history import History, Written, check
from tests.faults.stack import INDEX, Stack

SENDERS = 20
TEXTS = {f"d{i}": f"page three, line {i}" for i in range(30)}


def test_a_request_that_is_sent_by_twenty_at_once(new_stack: Callable[..., Stack], row: Callable[..., None]) -> None:
    stack = new_stack()
    urls = [stack.api()[1] for _ in range(2)]
    history = History(INDEX)
    body = [{"id": one, "text": text} for one, text in TEXTS.items()]

    def send(at: int, **headers: str) -> str:
        """Send a request, retry when the API asks for it, and return the job in the response."""
        deadline = monotonic() + 60
        with httpx.Client(base_url=urls[at % 2], timeout=60, trust_env=False) as client:
            while True:
                answer = client.post(f"/v1/indexes/{INDEX}/documents", json=body, headers=headers)
                if answer.status_code != 429 or monotonic() > deadline:
                    break
                sleep(0.1)
        if headers:
            assert answer.status_code == 202, answer.text
            assert sorted(answer.json()["accepted"]) == sorted(TEXTS)
        # (without a key another sender may have written every document a moment earlier: 422, no job)
        return str(answer.json().get("job", {}).get("id"))

    with Door(*urls, history=history) as door, ThreadPoolExecutor(SENDERS) as senders:
        door.create_index()
        jobs = set(senders.map(lambda at: send(at, **{"idempotency-key": "page-3"}), range(SENDERS)))
        history.acknowledge(*(Written(one, 1, text) for one, text in TEXTS.items()))
        other = door.client.post(f"/v1/indexes/{INDEX}/documents", json=body[:1], headers={"idempotency-key": "page-3"})
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
        stack.worker()
        stack.sweeper()
        stack.settle()
        assert check(history, stack.final()).broken == []
        counted = door.client.get(f"/v1/jobs/{next(iter(jobs))}").json()["states"]
        assert counted == {"pending": 0, "encoded": len(TEXTS), "dead": 0, "superseded": 0}
        without = set(senders.map(send, range(SENDERS))) - {"None"}
    row(
        fault=f"one request sent by {SENDERS} at once, to two APIs",
        promise="P9",
        protection="an idempotency key; the control sends none",
        counted="jobs too many",
        without=len(without) - 1,
        with_it=len(jobs) - 1,
    )
