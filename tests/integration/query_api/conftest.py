"""Provide encoded documents for tests of searches, an API in this process, and a view of its calls to OpenSearch."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from query_api.app import create_app
from services.opensearch.client import AsyncSearchClient, Call
from services.settings import Settings
from tests.encoding import encoding

ReadAnswer = Callable[[Call, Any], Awaitable[None]]


@pytest.fixture
def encode(settings: Settings) -> Callable[[], None]:
    """Provide `encode()`: take the waiting messages and process them in this process as a worker's task does."""
    return encoding(settings)


@pytest.fixture
def watch_calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[ReadAnswer], None]:
    """Provide `watch_calls(read)`: `read` gets each call of an API in this process to OpenSearch, with its answer."""
    send = AsyncSearchClient.send

    def watch(read: ReadAnswer) -> None:
        async def recorded(self: AsyncSearchClient, call: Call) -> Any:
            answer = await send(self, call)
            await read(call, answer)
            return answer

        monkeypatch.setattr(AsyncSearchClient, "send", recorded)

    return watch


@pytest.fixture
async def api_here(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Provide a client of an API in this process, without a network between them."""
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), timeout=60, base_url="http://api") as client,
    ):
        yield client
