"""Some documents can never be stored, and an index refuses all writes for a while."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson

from services.opensearch.client import Call
from services.queue.lanes import INGEST_QUEUE
from tests.faults.door import Door
from tests.faults.history import check
from tests.faults.processes import wait_for
from tests.faults.stack import INDEX, Stack

NewStack = Callable[..., Stack]
RowOf = Callable[..., None]

DEEP = 100_000
# Invalid documents, and the code that their sender receives.
BAD: dict[str, tuple[bytes, str]] = {
    "not UTF-8": (b'{"id": "x1", "text": "caf\xe9"}', "invalid_json"),
    "half a surrogate pair": (b'{"id": "x2", "text": "\\ud800"}', "invalid_json"),
    "not JSON": (b'{"id": "x3", "text": ', "invalid_json"),
    "10 MB": (b'{"id": "x4", "text": "' + b"x" * 10_000_000 + b'"}', "document_too_large"),
    "a conflict with the mapping": (b'{"id": "x5", "text": "a", "metadata": {"year": "soon"}}', "bad_metadata"),
    "an object for a number": (b'{"id": "x6", "text": "a", "metadata": {"year": {"a": 1}}}', "bad_metadata"),
    "a field that was not declared": (b'{"id": "x7", "text": "a", "metadata": {"month": 1}}', "undeclared_metadata"),
    "100,000 arrays in one another": (b'{"id": "x8", "text": ' + b"[" * DEEP + b"]" * DEEP + b"}", "too_many_values"),
    "100,000 objects in one another": (b'{"id":' * DEEP + b"1" + b"}" * DEEP, "too_many_values"),
    "a number without end": (b'{"id": "x9", "text": "a", "metadata": {"year": 1' + b"0" * 5000 + b"}}", "invalid_json"),
}
GOOD = 30


def mixed() -> bytes:
    """Mix valid and invalid lines."""
    lines = [orjson.dumps({"id": f"g{i}", "text": f"harmless {i}", "metadata": {"year": i}}) for i in range(GOOD)]
    for at, (bad, _) in enumerate(BAD.values()):
        lines.insert(2 * at + 1, bad)
    return b"\n".join(lines)


def stream(url: str) -> httpx.Response:
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as api:
        api.put(f"/v1/indexes/{INDEX}", json={"fields": {"year": "number"}}).raise_for_status()
        kind = {"content-type": "application/x-ndjson"}
        return api.post(f"/v1/indexes/{INDEX}/documents", content=mixed(), headers=kind)


def test_documents_that_nobody_can_take_among_others(new_stack: NewStack, row: RowOf) -> None:
    stack, careless = new_stack(), new_stack()
    _, url = stack.api()
    worker = stack.worker()
    answer = stream(url)
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert [one["code"] for one in told["rejected"]] == [code for _, code in BAD.values()]
    assert all(one["position"] and one["reason"] for one in told["rejected"])
    assert max(len(one["reason"]) for one in told["rejected"]) < 500, "a reason does not repeat the document"
    # the same through the queue, which Celery parses first
    with stack.redis.client() as broker:
        broker.lpush(INGEST_QUEUE, b'{"body": "", "properties": ' + b"[" * DEEP + b"]" * DEEP + b"}")
    assert stack.settle() == 0
    wait_for(lambda: not stack.owed(), 60, "the worker has read the message that nobody can read")
    assert worker.alive
    assert httpx.get(f"{url}/healthz", timeout=30, trust_env=False).is_success
    encoded = {one for one, state in stack.states().items() if state == "encoded"}
    assert not encoded & {f"x{i}" for i in range(1, 10)}
    stream(careless.api("judged_alone")[1])
    row(
        fault="ten documents that cannot be taken (10 MB, not UTF-8, 100,000 levels, wrong types) among thirty",
        promise="P4",
        protection="each document is judged alone",
        counted="neighbours that are not searchable",
        without=GOOD - len(careless.states()),
        with_it=GOOD - len(encoded),
    )


def test_an_index_is_read_only_as_on_a_full_disk(new_stack: NewStack, tmp_path: Path, row: RowOf) -> None:
    stack = new_stack(opensearch_timeout=3.0)
    log = tmp_path / "encoded"
    with Door(stack.api()[1]) as door, Door(stack.api("blocks")[1]) as careless:
        door.create_index()
        door.post({f"d{i}": f"harmless {i}" for i in range(10)})
        _block(stack, True)
        worker = stack.worker(ENCODER_LOG=log, retry_seconds=2)
        stack.sweeper()
        wait_for(log.exists, 60, "the worker has encoded documents that it cannot write")
        began = time.monotonic()
        answer = door.post({f"e{i}": f"harmless {i}" for i in range(10)})
        waited = time.monotonic() - began
        refused = careless.post({f"f{i}": f"harmless {i}" for i in range(10)})
        assert answer is not None and refused is not None
        assert (answer.status_code, answer.json()["code"]) == (429, "opensearch_overloaded"), answer.text
        assert answer.headers["retry-after"]
        assert waited < 3 + 2, "it answers within its deadline"
        search = door.client.get(f"/v1/indexes/{INDEX}/search", params={"q": "harmless", "mode": "lexical"})
        assert len(search.json()["hits"]) == 10, "reading goes on"
        assert set(stack.states().values()) == {"pending"}
        _block(stack, False)
        assert stack.settle() == 0
        again = door.post({f"e{i}": f"harmless {i}" for i in range(10)})
        assert again is not None and again.status_code == 202
        assert stack.settle() == 0
        assert worker.alive
        findings = check(door.history, stack.final())
        assert (findings.broken, findings.dead) == ([], [])
    row(
        fault="an index is read-only for a while (flood stage of the disk)",
        promise="P1",
        protection="a block of an index says nothing of a document",
        counted="documents refused for good",
        without=_for_good(refused),
        with_it=_for_good(answer),
    )


def _for_good(answer: httpx.Response) -> int:
    told: dict[str, Any] = answer.json()
    return sum(one["code"] == "refused_by_opensearch" for one in told.get("rejected", ()))


def _block(stack: Stack, on: bool) -> None:
    setting = {"index.blocks.read_only_allow_delete": on or None}
    stack.search.send(Call("PUT", f"/{stack.physical}/_settings", orjson.dumps(setting)))
