"""The client of the model process against a process that is slow, away, wrong, or returns garbage."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from infra.ports import find_free_port
from services.encoders.catalogue import STANDIN_NAME, list_dense_encoders
from services.errors import BackendUnavailable
from services.model_client import ModelClient
from services.settings import Settings

IDENTITY = list_dense_encoders(Settings())[STANDIN_NAME].identity
GOOD = {"fingerprint": IDENTITY.fingerprint, "vectors": [[0.5] * IDENTITY.width]}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Start a server that handles every POST with the given function. Return its address."""
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_post("/{path}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        port = find_free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        runners.append(runner)
        return f"http://127.0.0.1:{port}"

    yield start
    for runner in runners:
        await runner.cleanup()


async def error_code(url: str) -> str:
    """Return the code of the resulting error."""
    client = ModelClient(url, 5)
    try:
        with pytest.raises(BackendUnavailable) as caught:
            await client.embed("words", IDENTITY)
        return caught.value.code
    finally:
        await client.close()


async def test_a_vector_over_one_connection(serve: Callable[[Handler], Awaitable[str]]) -> None:
    ports = set()

    async def answer(request: web.Request) -> web.Response:
        assert (await request.json())["encoder"] == IDENTITY.fingerprint
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        return web.json_response(GOOD)

    client = ModelClient(await serve(answer) + "/", 5)
    for _ in range(3):
        assert (await client.embed("words", IDENTITY)).tolist() == [0.5] * IDENTITY.width
    await client.close()
    assert len(ports) == 1


async def test_a_process_that_hangs_costs_one_deadline_and_is_left_alone(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    calls = 0

    async def hang(request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        await asyncio.sleep(60)
        return web.Response()

    client = ModelClient(await serve(hang), 0.2)
    codes = []
    for _ in range(3):
        with pytest.raises(BackendUnavailable) as caught:
            await client.embed("words", IDENTITY)
        codes.append(caught.value.code)
    await client.close()
    assert codes == ["model_timeout", "model_resting", "model_resting"]
    assert calls == 1


async def test_a_slow_reranker_rests_alone_and_has_its_own_deadline(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    async def answer(request: web.Request) -> web.Response:
        model = (await request.json()).get("model")
        if model == "listwise":
            await asyncio.sleep(60)
        return web.json_response(GOOD if model is None else {"scores": [1.0]})

    client = ModelClient(await serve(answer), 60, reranker_timeouts={"listwise": 0.2})
    codes = []
    for _ in range(2):
        with pytest.raises(BackendUnavailable) as caught:
            await client.score("listwise", "words", ["passage"])
        codes.append(caught.value.code)
    assert codes == ["model_timeout", "model_resting"]
    assert (await client.score("cross-encoder", "words", ["passage"])).tolist() == [1.0]
    assert len(await client.embed("words", IDENTITY)) == IDENTITY.width
    await client.close()


async def test_nobody_listens() -> None:
    assert await error_code(f"http://127.0.0.1:{find_free_port()}") == "model_unavailable"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (GOOD | {"fingerprint": "f" * 16}, "model_mismatch"),
        (GOOD | {"vectors": [[0.5] * (IDENTITY.width + 1)]}, "model_garbage"),
        (GOOD | {"vectors": []}, "model_garbage"),
        (GOOD | {"vectors": "x"}, "model_garbage"),
        (GOOD | {"vectors": [[None] * IDENTITY.width]}, "model_garbage"),
        ([1], "model_garbage"),
    ],
)
async def test_answers_that_are_none(serve: Callable[[Handler], Awaitable[str]], answer: object, code: str) -> None:
    async def answered(request: web.Request) -> web.Response:
        return web.json_response(answer)

    assert await error_code(await serve(answered)) == code


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (429, '{"code": "model_busy"}', "model_refused"),
        (200, "<html>", "model_garbage"),
        (302, "", "model_garbage"),
        (200, '{"vectors": "' + "x" * 5 * 1024**2 + '"}', "model_unavailable"),
    ],
)
async def test_other_answers(serve: Callable[[Handler], Awaitable[str]], status: int, body: str, code: str) -> None:
    async def answered(request: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers={"location": "http://elsewhere/"})

    assert await error_code(await serve(answered)) == code
