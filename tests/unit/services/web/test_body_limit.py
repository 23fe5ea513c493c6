"""Tests of the limits on request bodies: size and time."""

import asyncio
from typing import Any

import pytest

from services.web.middleware import BodyLimitMiddleware


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def status(seconds: float, pause: float) -> int:
    """Return the status for a body in two parts with a pause between them."""
    sent: list[Any] = []
    parts = iter([{"body": b"a", "more_body": True}, {"body": b"b"}])

    async def receive() -> Any:
        part = next(parts)
        if "more_body" not in part:
            await asyncio.sleep(pause)
        return {"type": "http.request"} | part

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/", "headers": [], "method": "POST"}
    await BodyLimitMiddleware(application, seconds=seconds)(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.asyncio
async def test_a_body_that_does_not_end_times_out() -> None:
    assert await asyncio.wait_for(status(0.05, 3600), 30) == 408


@pytest.mark.asyncio
async def test_a_slow_body_is_read() -> None:
    assert await status(60, 0.01) == 200
