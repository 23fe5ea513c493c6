"""Settings of uvicorn for the API and the model process."""

import socket

import pytest
import uvicorn
from fastapi import FastAPI

from services.settings import Settings
from services.web.http_server import ConnectionLimits, DrainingServer, run_server


def test_an_idle_connection_outlives_the_connection_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies keep an idle connection for 60 s, uvicorn for 5 s by default. The first to close may lose a request."""
    configured: list[uvicorn.Config] = []
    monkeypatch.setattr(DrainingServer, "run", lambda self, **_: configured.append(self.config))
    with socket.socket() as listener:
        run_server(FastAPI(), listener, ConnectionLimits.of(Settings()))
        run_server(FastAPI(), listener, ConnectionLimits.of(Settings(idle_seconds=620)))
    assert configured[0].timeout_keep_alive > 60
    assert configured[1].timeout_keep_alive == 620
