"""Provide an API that requires keys, and a model process for searches that rerank."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray

from models.dense import load_dense_encoder
from models.serving import ModelPool, create_model_app
from services.access.api_keys import generate_key
from services.encoders.catalogue import STANDIN_NAME, list_dense_encoders
from services.settings import Settings

Client = httpx.Client


@pytest.fixture
def admin_key() -> str:
    return generate_key("a" * 16)


@pytest.fixture
def settings(settings: Settings, tmp_path: Path, admin_key: str) -> Settings:
    file = tmp_path / "admin-key"
    file.write_text(admin_key)
    return settings.model_copy(update={"admin_key_file": str(file)})


@pytest.fixture
def admin(api: httpx.Client, admin_key: str) -> httpx.Client:
    """Return the API's client with the administrator's key."""
    api.headers["authorization"] = f"Bearer {admin_key}"
    return api


@pytest.fixture
def make_key(admin: httpx.Client) -> Callable[..., str]:
    """Provide `make_key(scopes, **members)`: create a key and return its text."""

    def make(scopes: list[str], **members: Any) -> str:
        answer = admin.post("/v1/keys", json={"name": "test", "scopes": scopes} | members)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])

    return make


@pytest.fixture
def as_key(api_url: str) -> Iterator[Callable[[str], httpx.Client]]:
    """Provide `as_key(text)`: a client of the API with that key."""
    clients: list[httpx.Client] = []

    def client(text: str) -> httpx.Client:
        clients.append(
            httpx.Client(base_url=api_url, headers={"authorization": f"Bearer {text}"}, timeout=30, trust_env=False)
        )
        return clients[-1]

    yield client
    for one in clients:
        one.close()


@pytest.fixture
def told() -> list[str]:
    """Return the passages that a model received."""
    return []


@pytest.fixture
def model_socket() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def model_process(model_socket: socket.socket, told: list[str], eventually: Callable[..., None]) -> Iterator[None]:
    def shortest(query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        told.extend(passages)
        return np.array([-len(passage) for passage in passages], dtype=np.float32)

    dense = load_dense_encoder(list_dense_encoders(Settings())[STANDIN_NAME], Path("unused"))
    held = ModelPool({STANDIN_NAME: dense}, {"cross-encoder": shortest})
    server = uvicorn.Server(uvicorn.Config(create_model_app(held), log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [model_socket]}, name="models")
    thread.start()
    try:
        eventually(lambda: server.started, 60, "the model process listens")
        yield
    finally:
        server.should_exit = True
        thread.join(30)


LiveApi = Callable[[Settings], AbstractContextManager[str]]
