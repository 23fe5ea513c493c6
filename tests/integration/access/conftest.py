"""An API that asks for keys."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.access.key_text import new_key
from services.settings import Settings

Client = httpx.Client


@pytest.fixture
def admin_key() -> str:
    return new_key("a" * 16)


@pytest.fixture
def settings(settings: Settings, tmp_path: Path, admin_key: str) -> Settings:
    file = tmp_path / "admin-key"
    file.write_text(admin_key)
    return settings.model_copy(update={"admin_key_file": str(file)})


@pytest.fixture
def admin(api: httpx.Client, admin_key: str) -> httpx.Client:
    """The API's client, with the key that may do everything."""
    api.headers["authorization"] = f"Bearer {admin_key}"
    return api


@pytest.fixture
def make_key(admin: httpx.Client) -> Callable[..., str]:
    """`make_key(scopes, **members)`: the text of a new key."""

    def make(scopes: list[str], **members: Any) -> str:
        answer = admin.post("/v1/keys", json={"name": "test", "scopes": scopes} | members)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])

    return make


@pytest.fixture
def as_key(api_url: str) -> Iterator[Callable[[str], httpx.Client]]:
    """`as_key(text)`: a client of the API with that key."""
    clients: list[httpx.Client] = []

    def client(text: str) -> httpx.Client:
        clients.append(
            httpx.Client(base_url=api_url, headers={"authorization": f"Bearer {text}"}, timeout=30, trust_env=False)
        )
        return clients[-1]

    yield client
    for one in clients:
        one.close()


LiveApi = Callable[[Settings], AbstractContextManager[str]]
