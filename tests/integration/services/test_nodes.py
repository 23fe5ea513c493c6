"""Several addresses of OpenSearch: a dead address costs no request, in each way in which a machine can fail."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from infra.ports import find_free_port
from services.errors import BackendUnavailable
from services.opensearch.client import AsyncSearchClient, Call, SyncSearchClient
from services.opensearch.transport import CONNECT_SECONDS
from services.settings import Settings

ASK = Call("GET", "/_cluster/health", timeout=10)

# Twenty requests, of which every second waits for a dead address, take ten times CONNECT_SECONDS.
SOON = 5 * CONNECT_SECONDS


@pytest.fixture
def silent_to_packets() -> Iterator[int]:
    """Open a port whose connection queue is full. It answers no packet, like a dead machine."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@pytest.fixture
def never_answers() -> Iterator[int]:
    """Open a port that accepts connections and requests and never answers, like a stopped node."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield server.getsockname()[1]


def beside(settings: Settings, *ports: int) -> Settings:
    """Return settings with dead addresses before the live address."""
    dead = ",".join(f"http://127.0.0.1:{port}" for port in ports)
    return settings.model_copy(update={"opensearch_url": f"{dead},{settings.opensearch_url}"})


def test_an_address_that_refuses_costs_nothing(settings: Settings) -> None:
    with closing(SyncSearchClient(beside(settings, find_free_port(), find_free_port()))) as search:
        began = time.monotonic()
        assert all(search.send(ASK)["status"] for _ in range(20))
        assert time.monotonic() - began < SOON


def test_an_address_that_is_silent_costs_a_moment_and_no_request(settings: Settings, silent_to_packets: int) -> None:
    with closing(SyncSearchClient(beside(settings, silent_to_packets))) as search:
        began = time.monotonic()
        assert all(search.send(ASK)["status"] for _ in range(20))
        assert time.monotonic() - began < SOON


async def test_so_it_is_in_an_event_loop_for_requests_at_once(settings: Settings, silent_to_packets: int) -> None:
    search = AsyncSearchClient(beside(settings, find_free_port(), silent_to_packets))
    try:
        took = []
        for _ in range(5):
            began = time.monotonic()
            answers = await asyncio.gather(*(search.send(ASK) for _ in range(20)))
            assert all(answer["status"] for answer in answers)
            took.append(time.monotonic() - began)
        assert min(took[2:]) < CONNECT_SECONDS, "in the end the dead ones are left alone"
    finally:
        await search.close()


async def test_one_that_never_answers_is_left_alone_after_its_first_request(
    settings: Settings, never_answers: int
) -> None:
    search = AsyncSearchClient(beside(settings, never_answers))
    failed = 0
    try:
        for _ in range(20):
            try:
                async with asyncio.timeout(3):  # the deadline of a search
                    await search.send(ASK)
            except TimeoutError:
                failed += 1
        assert failed <= 1
    finally:
        await search.close()


def test_so_it_is_for_workers(settings: Settings, never_answers: int) -> None:
    failed = 0
    with closing(SyncSearchClient(beside(settings, never_answers))) as search:
        for _ in range(20):
            try:
                search.send(Call("GET", "/_cluster/health", timeout=3))
            except BackendUnavailable as error:
                assert error.code == "opensearch_timeout"
                failed += 1
    assert failed <= 1


def test_when_all_are_gone_it_says_so_soon_and_tries_again_at_once(settings: Settings) -> None:
    gone = settings.model_copy(
        update={"opensearch_url": f"http://127.0.0.1:{find_free_port()},http://127.0.0.1:{find_free_port()}"}
    )
    with closing(SyncSearchClient(gone)) as search:
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(BackendUnavailable) as caught:
                search.send(ASK)
            assert caught.value.code == "opensearch_unavailable"
            assert time.monotonic() - began < SOON
