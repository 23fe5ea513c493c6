"""Public Host headers, which a service in mode `open` refuses."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from query_api.app import create_app
from services.access.api_keys import generate_key
from services.settings import Settings
from services.web.http_auth import has_public_host


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8010", "LOCALHOST", "127.0.0.1:8010", "[::1]:8010", "10.0.0.7", "api", "a.localhost", ""],
)
def test_local_names_are_not_public(host: str) -> None:
    assert not has_public_host([(b"host", host.encode())])
    assert not has_public_host([(b"x-forwarded-host", b"search.example")])


@pytest.mark.parametrize(
    "host", ["search.example", "search.example:8010", "search.example.", "127.0.0.1.evil.example", "localhost.example"]
)
def test_public_names_are_detected(host: str) -> None:
    assert has_public_host([(b"host", b"localhost"), (b"host", host.encode())])


def test_an_open_service_refuses_public_hosts_unless_configured_as_open() -> None:
    settings = Settings(encoder="standin", opensearch_url="http://127.0.0.1:9")
    with TestClient(create_app(settings), base_url="http://localhost:8010") as client:
        assert client.get("/healthz").status_code == 200
        for path in ("/", "/healthz", "/v1/encoders"):
            refused = client.get(path, headers={"host": "evil.example:8010"})
            assert (refused.status_code, refused.json()["code"]) == (403, "host_forbidden")
    opened = settings.model_copy(update={"access": "open"})
    with TestClient(create_app(opened), base_url="http://search.example") as client:
        assert client.get("/healthz").status_code == 200


def test_with_keys_any_host_is_accepted(tmp_path: Path) -> None:
    """If another page makes a browser send requests, they have no key."""
    file = tmp_path / "key"
    file.write_text(generate_key("a" * 16))
    settings = Settings(encoder="standin", admin_key_file=str(file), opensearch_url="http://127.0.0.1:9")
    with TestClient(create_app(settings), base_url="http://search.example") as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/encoders").status_code == 401
