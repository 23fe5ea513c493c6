"""Connections end at the wrong moment on both sides of the API, and some senders are slow."""

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.transport import DEAD_NODE_SECONDS
from tests.faults.door import Door
from tests.faults.history import check
from tests.faults.processes import Running, wait_for
from tests.faults.proxy import Proxy
from tests.faults.stack import INDEX, Stack

NewStack = Callable[..., Stack]
RowOf = Callable[..., None]


@pytest.fixture
def proxy(opensearch_url: str) -> Iterator[Proxy]:
    """Run a proxy between the API and the node."""
    with Proxy(urlsplit(opensearch_url).port or 9200) as one:
        yield one


def cut_after_every_request(stack: Stack, proxy: Proxy, *without: str) -> tuple[Door, int]:
    """Send twenty requests and ten deletes, and cut the first response of OpenSearch to each. Every other loses the
    second too.

    Return the client's record, and how often the API wrongly reported a newer version.
    """
    _, url = stack.api(*without, opensearch_url=proxy.url)
    stale = 0
    with Door(url) as door:
        door.create_index()
        for number in range(20):
            proxy.cut_answers(b"POST /_bulk", times=1 + number % 2)
            # With the server's version a write that finds itself stored would be repeated with a higher one.
            answer = door.post({f"d{number}": f"harmless {number}", f"e{number}": f"innocent {number}"}, version=1)
            assert answer is not None
            stale += sum(one["code"] == "stale_version" for one in answer.json().get("rejected", ()))
        for number in range(10):
            proxy.cut_answers(b"POST /_bulk", times=1 + number % 2)
            answer = door.delete(f"d{number}", version=2)
            assert answer is not None
            stale += answer.status_code == 409
        assert proxy.cuts == 45
    return door, stale


@pytest.mark.faults_slow
def test_the_connection_to_opensearch_is_cut_after_the_request(
    new_stack: NewStack, proxy: Proxy, opensearch_url: str, row: RowOf
) -> None:
    stack = new_stack()
    door, stale = cut_after_every_request(stack, proxy)
    assert len(door.history.acknowledged) == 50, "each was stored, and each is acknowledged"
    stack.worker()
    assert stack.settle() == 0
    findings = check(door.history, stack.final())
    assert (findings.broken, findings.dead) == ([], [])
    assert sorted(stack.states().values()).count("encoded") == 30, "none is there twice"
    with Proxy(proxy.target) as another:
        _, without = cut_after_every_request(new_stack(), another, "own_writes")
    row(
        fault="connection to OpenSearch cut after the request was sent",
        promise="P2",
        protection="a write that finds itself stored is acknowledged",
        counted="writes called stale that are stored",
        without=without,
        with_it=stale,
    )


def test_an_address_that_comes_back_is_asked_again(new_stack: NewStack, proxy: Proxy) -> None:
    stack = new_stack()
    both = stack.settings.model_copy(update={"opensearch_url": f"{proxy.url},{stack.settings.opensearch_url}"})
    ask = Call("GET", "/_cluster/health")
    with closing(SyncSearchClient(both)) as search:
        proxy.refuses = True
        assert all(search.send(ask)["status"] for _ in range(5))
        proxy.refuses = False
        # (the test cuts a request that this API takes, and the other API answers the retry)
        proxy.cut_answers(b"GET /_cluster/health")
        wait_for(lambda: search.send(ask)["status"] and proxy.cuts, DEAD_NODE_SECONDS + 5, "it is asked again")


HEAD = (
    f"POST /v1/indexes/{INDEX}/documents HTTP/1.1\r\nHost: api\r\nContent-Type: application/x-ndjson\r\n"
    "Transfer-Encoding: chunked\r\n\r\n"
).encode()


def sent(lines: bytes) -> bytes:
    """Return the bytes as one chunk of a chunked body."""
    return f"{len(lines):x}\r\n".encode() + lines + b"\r\n"


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 80), timeout=10)


def taken(one: socket.socket) -> bool:
    """Return whether the peer process has taken all bytes from the kernel."""
    ours, theirs = (f":{name[1]:04X}" for name in (one.getsockname(), one.getpeername()))
    for line in Path("/proc/net/tcp").read_text().splitlines():
        _, local, remote, _, queues = line.split()[:5]
        if local.endswith(theirs) and remote.endswith(ours):
            return queues.endswith(":00000000")
    return False


def half_a_stream(stack: Stack, *without: str) -> int:
    """Send 1,200 documents of a stream and disconnect. Return how many of them are not stored."""
    _, url = stack.api(*without)
    with Door(url) as door:
        door.create_index()
        with closing(connected(url)) as one:
            one.sendall(HEAD)
            for at in range(0, 1200, 100):
                one.sendall(sent(b"".join(b'{"id": "d%d", "text": "harmless"}\n' % i for i in range(at, at + 100))))
            one.sendall(b"ffff\r\n" + b'{"id": "half')
            if not without:
                wait_for(lambda: len(stack.states()) >= 1000, 60, "what came in is journalled, five hundred at a time")
            wait_for(lambda: taken(one), 60, "the API has taken what was sent")
            # abruptly: the kernel answers with a reset
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        deadline = time.monotonic() + 5
        while len(found := stack.states()) < 1200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert door.client.get("/healthz").is_success
        assert "half" not in found
        return 1200 - len(found)


def test_a_sender_is_gone_in_the_middle_of_its_stream(new_stack: NewStack, row: RowOf) -> None:
    stack = new_stack()
    missing = half_a_stream(stack)
    jobs = {stored.source["job"] for stored in stack.documents("job")}
    assert len(jobs) == 1
    _, url = stack.api()
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as api:
        job = api.get(f"/v1/jobs/{jobs.pop()}").json()
    assert job["accepted"] == 1200, "the job tells what was stored"
    row(
        fault="a sender vanishes in the middle of an NDJSON stream",
        promise="P1",
        protection="a stream is journalled while it comes in, under a job",
        counted="whole lines that came in and are nowhere",
        without=half_a_stream(new_stack(), "streaming"),
        with_it=missing,
    )


def resident(running: Running) -> int:
    """Return the resident memory of a process in bytes."""
    return int(psutil.Process(running.child.pid).memory_info().rss)


SENDERS, MEGABYTES = 60, 3


def crowd_of_slow_senders(stack: Stack, *without: str) -> tuple[int, float]:
    """Run sixty clients that send an endless line and then a byte now and then, while others search and write.

    Return the API's growth in megabytes, and the longest response time of the others in seconds.
    """
    running, url = stack.api(*without)
    longest = 0.0
    with Door(url) as door, ExitStack() as crowd:
        door.create_index()
        door.post({"a": "harmless"})
        before = resident(running)
        senders = [crowd.enter_context(closing(connected(url))) for _ in range(SENDERS)]
        for one in senders:
            one.sendall(HEAD)
        for part in range(MEGABYTES * 4):
            for number, one in enumerate(senders):
                beginning = b'{"id": "s%d", "text": "' % number if part == 0 else b""
                one.sendall(sent(beginning + b"x" * 256 * 1024))
        for number in range(30):
            senders[number].sendall(sent(b"x"))
            for ask in (
                lambda: door.client.get(f"/v1/indexes/{INDEX}/search", params={"q": "harmless"}),
                lambda number=number: door.post({f"d{number}": "harmless"}),  # type: ignore[misc]
            ):
                began = time.monotonic()
                answer = ask()
                longest = max(longest, time.monotonic() - began)
                assert answer is not None and answer.is_success, answer
        grown = (resident(running) - before) // 1024**2
    wait_for(lambda: door_is_quiet(url), 60, "the API answers after they have gone")
    return grown, longest


def door_is_quiet(url: str) -> bool:
    with httpx.Client(base_url=url, trust_env=False, timeout=5) as client:
        return client.get("/readyz").is_success


@pytest.mark.faults_slow
def test_a_crowd_of_slow_senders(new_stack: NewStack, row: RowOf) -> None:
    # (there is room for all senders: their limit is another protection)
    chosen = {"max_document_bytes": 256 * 1024, "journal_bytes": 64 * 1024, "max_ingest_requests": 200}
    chosen["opensearch_pool"] = 300
    grown, longest = crowd_of_slow_senders(new_stack(**chosen))
    without, _ = crowd_of_slow_senders(new_stack(**chosen), "bounded_lines")
    assert longest < 2, "others are served meanwhile"
    # A sender may make the API hold one document (256 KB here, copied once while the API joins a line).
    allowed = SENDERS * 2 * 256 // 1024 + 20
    row(
        fault=f"{SENDERS} slow senders of lines without an end, {MEGABYTES} MB each",
        promise="P5",
        protection="at most one document is held for a sender",
        counted=f"MB of memory beyond {allowed}",
        without=max(0, without - allowed),
        with_it=max(0, grown - allowed),
    )


MAX_REQUESTS, BODY_TIMEOUT_SECONDS = 4, 3.0


def was_answered(one: socket.socket) -> bool:
    """Return whether a response comes at once: the refusal for lack of a free place."""
    return bool(select.select([one], [], [], 0.2)[0])


def every_place_is_taken(stack: Stack) -> int:
    """Fill every place with senders of a byte now and then. Return how many other writes are refused late."""
    _, url = stack.api()
    late = 0
    with Door(url) as door, ExitStack() as crowd:
        door.create_index()
        door.post({"a": "harmless"})
        senders: list[socket.socket] = []
        while not senders or not was_answered(senders[-1]):
            assert len(senders) < 10 * MAX_REQUESTS, "there are more places than there should be"
            senders.append(crowd.enter_context(closing(connected(url))))
            senders[-1].sendall(HEAD + sent(b'{"id": "s", "text": "'))
        refused = None
        began = time.monotonic()
        while (since := time.monotonic() - began) < 3 * BODY_TIMEOUT_SECONDS:
            for one in senders:
                with suppress(OSError):
                    one.sendall(sent(b"x"))
            answer = door.post({"b": f"harmless {since}"})
            assert answer is not None
            if answer.status_code == 429:
                assert answer.json()["code"] == "too_many_requests"
                assert answer.headers["retry-after"]
                refused, late = answer, late + (since > 2 * BODY_TIMEOUT_SECONDS)
            else:
                assert answer.status_code == 202
            searched = door.client.get(f"/v1/indexes/{INDEX}/search", params={"q": "harmless"})
            assert searched.is_success, "searches need no such place"
            time.sleep(0.1)  # (the pace of the slow senders)
        assert refused is not None, "every place was taken"
    return late


@pytest.mark.faults_slow
def test_slow_senders_do_not_keep_every_place(new_stack: NewStack, row: RowOf) -> None:
    row(
        fault="slow senders take every place for documents",
        promise="P5",
        protection="a body has a deadline for each MiB",
        counted=f"writes of others refused after {2 * BODY_TIMEOUT_SECONDS:g} s",
        without=every_place_is_taken(new_stack(max_ingest_requests=MAX_REQUESTS, body_timeout=3600)),
        with_it=every_place_is_taken(new_stack(max_ingest_requests=MAX_REQUESTS, body_timeout=BODY_TIMEOUT_SECONDS)),
    )
