"""Connections that send slowly, much or nothing, or do not read. None blocks the server.

Each test repeats the attack on uvicorn's own connection, which has no limits.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from services.web.http_server import BoundedConnection, ConnectionLimits
from tests.problem_counts import problems

SHORT_LIMITS = ConnectionLimits(head_seconds=0.2, head_bytes=2000, stall_seconds=0.3, connections=20)
LONG_LIMITS = ConnectionLimits(head_seconds=30, head_bytes=2000, stall_seconds=30, connections=3)
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
Made = Callable[..., asyncio.Protocol]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def answers(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the length of the body; /much gives a long answer, /names the names of the headers."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(200 if scope["path"] == "/much" else 0):
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
    names = b",".join(name for name, _ in scope["headers"]) if scope["path"] == "/names" else b""
    await send({"type": "http.response.body", "body": b"%b%d bytes" % (names, length)})


@asynccontextmanager
async def serving(made: Made) -> AsyncIterator[Callable[[], Any]]:
    config = uvicorn.Config(answers, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=1)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        partial(made, config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    opened: list[Streams] = []

    async def connect(limit: int = 2**16) -> Streams:
        opened.append(await asyncio.open_connection("127.0.0.1", port, limit=limit))
        return opened[-1]

    try:
        yield connect
    finally:
        server.close()
        for _, writer in opened:
            writer.close()
        for one in list(state.connections):
            one.transport.abort()
        await asyncio.sleep(0)


def with_short_limits(**kwargs: Any) -> asyncio.Protocol:
    return BoundedConnection(SHORT_LIMITS, **kwargs)


def with_long_limits(**kwargs: Any) -> asyncio.Protocol:
    return BoundedConnection(LONG_LIMITS, **kwargs)


def uvicorns(**kwargs: Any) -> asyncio.Protocol:
    return HttpToolsProtocol(**kwargs)


async def ended(reader: asyncio.StreamReader, seconds: float) -> bytes | None:
    """Return the bytes until the connection ends. Return None if it is still open."""
    try:
        return await asyncio.wait_for(reader.read(), seconds)
    except TimeoutError:
        return None


async def answer_to_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> bytes | None:
    """Send a thousand bytes at a time and return the answer until the connection ends."""
    for at in range(0, len(sent), 1000):
        writer.write(sent[at : at + 1000])
        await asyncio.sleep(0.01)
    return await ended(reader, 10)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nx-slow: ", b"\r\n"])
@pytest.mark.asyncio
async def test_who_sends_no_head_is_let_go(sent: bytes) -> None:
    async with serving(with_short_limits) as connect:
        reader, writer = await connect()
        writer.write(sent)
        got = await ended(reader, 10)
        assert got is not None, "closed"
        if sent.strip():
            assert got.startswith(b"HTTP/1.1 408 ")
            assert json.loads(got.partition(b"\r\n\r\n")[2])["code"] == "head_too_slow"
    async with serving(uvicorns) as connect:  # the control
        reader, writer = await connect()
        writer.write(sent)
        assert await ended(reader, 0.5) is None, "uvicorn's own waits for ever"


@pytest.mark.asyncio
async def test_so_is_who_trickles_a_second_head() -> None:
    async with serving(with_short_limits) as connect:
        reader, writer = await connect()
        writer.write(REQUEST)
        assert b"0 bytes" in await reader.readuntil(b"bytes\r\n0\r\n\r\n")
        for piece in (b"GET / HTTP/1.1\r\n", b"x-a: 1\r\n"):
            writer.write(piece)
            await asyncio.sleep(0.05)
        got = await ended(reader, 10)
        assert got is not None
        assert got.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nx: " + b"y" * 3000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * 3000,
        b"GET /?" + b"q" * 3000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: 1\r\n" * 1000,
    ],
)
@pytest.mark.asyncio
async def test_a_head_has_an_end(head: bytes) -> None:
    async with serving(with_long_limits) as connect:
        got = await answer_to_pieces(*await connect(), head)
        assert got is not None
        assert got.startswith(b"HTTP/1.1 431 ")
        assert json.loads(got.partition(b"\r\n\r\n")[2])["code"] == "head_too_large"
    async with serving(uvicorns) as connect:  # the control
        reader, writer = await connect()
        writer.write(head)
        got = await ended(reader, 0.5)
        assert got is None or got.startswith(b"HTTP/1.1 200 ")


CHUNKED = b"POST /names HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n"


@pytest.mark.asyncio
async def test_fields_behind_a_body_are_no_headers() -> None:
    """The gate and any proxy have read the headers. A later field must not replace them."""
    sent = CHUNKED + b"0\r\nauthorization: Bearer x\r\nx-forwarded-for: 192.0.2.1\r\n\r\n"
    told = {}
    for made in (with_long_limits, uvicorns):
        async with serving(made) as connect:
            reader, writer = await connect()
            writer.write(sent)
            told[made] = await reader.readuntil(b"bytes\r\n0\r\n\r\n")
    assert b"host,transfer-encoding1 bytes" in told[with_long_limits]
    assert b"authorization" not in told[with_long_limits]
    assert b"authorization" in told[uvicorns], "the control"


@pytest.mark.parametrize("behind", [b"0\r\n" + b"a: 1\r\n" * 1000, b"0\r\na: " + b"y" * 5000, b"1;" + b"e" * 5000])
@pytest.mark.asyncio
async def test_so_has_what_stands_behind_or_beside_a_body(behind: bytes) -> None:
    async with serving(with_long_limits) as connect:
        reader, writer = await connect()
        writer.write(CHUNKED)
        got = await answer_to_pieces(reader, writer, behind)
        assert got is not None
        assert got.startswith(b"HTTP/1.1 431 ")
    async with serving(uvicorns) as connect:  # the control
        reader, writer = await connect()
        writer.write(CHUNKED + behind)
        assert await ended(reader, 0.5) is None


@pytest.mark.asyncio
async def test_a_body_in_small_chunks_is_a_body() -> None:
    async with serving(with_long_limits) as connect:
        reader, writer = await connect()
        writer.write(CHUNKED)
        for _ in range(6):
            writer.write(b"1\r\nb\r\n" * 500)
            await asyncio.sleep(0.01)
        writer.write(b"0\r\n\r\n")
        assert b"3001 bytes" in await reader.readuntil(b"bytes\r\n0\r\n\r\n")


@pytest.mark.parametrize("sent", [b"GET\r\n\r\n", CHUNKED + b"zz\r\n", REQUEST + b"GET\r\n\r\n"])
@pytest.mark.asyncio
async def test_what_is_no_http_is_refused_and_counted(sent: bytes) -> None:
    before = problems("bad_http")
    async with serving(with_long_limits) as connect:
        reader, writer = await connect()
        writer.write(sent)
        got = await ended(reader, 10)
        assert got is not None
        if b"HTTP/1.1 400 " in got:
            assert json.loads(got.rpartition(b"\r\n\r\n")[2])["code"] == "bad_http"
    assert problems("bad_http") == before + 1


@pytest.mark.asyncio
async def test_who_does_not_read_is_let_go() -> None:
    async with serving(with_short_limits) as connect:
        reader, writer = await connect(limit=1)  # the client stops reading at once, as if it hung
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.sleep(1.0)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(200 * 100_000), 10)


@pytest.mark.asyncio
async def test_connections_beyond_the_limit_are_closed_and_the_others_served() -> None:
    async with serving(with_long_limits) as connect:
        kept = [await connect() for _ in range(LONG_LIMITS.connections)]
        for reader, writer in kept:
            writer.write(REQUEST)
            assert b"0 bytes" in await reader.readuntil(b"bytes\r\n0\r\n\r\n")
        for _ in range(20):
            reader, writer = await connect()
            writer.write(REQUEST)
            got = await ended(reader, 10)
            assert got is not None
            assert got.startswith(b"HTTP/1.1 503 ")
            assert json.loads(got.partition(b"\r\n\r\n")[2])["code"] == "too_many_connections"
        for reader, writer in kept:
            writer.write(REQUEST)
            assert b"0 bytes" in await reader.readuntil(b"bytes\r\n0\r\n\r\n")


@pytest.mark.asyncio
async def test_a_server_that_is_full_tells_a_probe_that_it_lives() -> None:
    """The control is another request in the test above: the server refuses it."""

    async def send_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: bytes) -> bytes | None:
        writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path)
        return await ended(reader, 10)

    async with serving(with_long_limits) as connect:
        kept = [await connect() for _ in range(LONG_LIMITS.connections)]
        for path in (b"/healthz", b"/readyz"):
            got = await send_request(*await connect(), path)
            assert got is not None, "one request, and the place is free again"
            assert got.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in got
        # two requests at once: the second request on a probe's connection has the same limits
        got = await send_request(*await connect(), b"/healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /names")
        assert got is not None
        assert got.startswith(b"HTTP/1.1 503 ")
        # silent clients hold the places of probes for one second only
        silent = [await connect() for _ in range(200)]
        for reader, _ in silent:
            with suppress(ConnectionError):
                assert await ended(reader, 10) == b""
        got = await send_request(*await connect(), b"/healthz")
        assert got is not None
        assert got.startswith(b"HTTP/1.1 200 ")
        assert not any(reader.at_eof() for reader, _ in kept)


@pytest.mark.asyncio
async def test_slow_bodies_and_pipelined_requests_are_left_alone() -> None:
    """A body has its own deadline, which the application sets. The deadline of a head does not apply to it."""
    async with serving(with_short_limits) as connect:
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\na")
        await asyncio.sleep(0.5)
        writer.write(b"bc" + REQUEST + REQUEST)
        assert b"3 bytes" in await reader.readuntil(b"bytes\r\n0\r\n\r\n")
        for _ in range(2):
            assert b"0 bytes" in await reader.readuntil(b"bytes\r\n0\r\n\r\n")


def test_there_are_no_more_connections_than_files(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    allowed = [300, 1000]

    def getrlimit(_: int) -> tuple[int, int]:
        return allowed[0], allowed[1]

    def setrlimit(_: int, wanted: tuple[int, int]) -> None:
        allowed[0] = wanted[0]

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert ConnectionLimits(connections=10_000).within_files().connections == 1000 - 256 - 64
    assert allowed[0] == 1000
    assert ConnectionLimits(connections=100).within_files().connections == 100
