"""The public names in Host headers that a service answers for."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from query_api.app import create_app
from services.access.api_keys import generate_key
from services.settings import Settings
from services.web.http_auth import AllowedHosts, public_host


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8010", "LOCALHOST", "127.0.0.1:8010", "[::1]:8010", "10.0.0.7", "api", "a.localhost", ""],
)
def test_local_names_are_not_public(host: str) -> None:
    assert public_host(host.encode()) == ""
    assert AllowedHosts("search.example", any_by_default=True).admit([(b"host", host.encode())])
    assert AllowedHosts("", any_by_default=False).admit([(b"x-forwarded-host", b"search.example")])


@pytest.mark.parametrize(
    "host", ["search.example", "search.example:8010", "search.example.", "127.0.0.1.evil.example", "localhost.example"]
)
def test_public_names_are_detected(host: str) -> None:
    assert not AllowedHosts("", any_by_default=False).admit([(b"host", b"localhost"), (b"host", host.encode())])
    assert AllowedHosts("", any_by_default=True).admit([(b"host", host.encode())])


def test_listed_names_and_domains_are_admitted_and_no_others() -> None:
    hosts = AllowedHosts(" Search.example. ,.shop.example", any_by_default=True)
    admitted = ["search.example", "SEARCH.example:8010", "shop.example", "a.b.shop.example", "search.example."]
    refused = ["evil.example", "a.search.example", "notshop.example", "shop.example.evil.example", "example"]
    assert [name for name in admitted if not hosts.admit([(b"host", name.encode())])] == []
    assert [name for name in refused if hosts.admit([(b"host", name.encode())])] == ["example"], "it has no dot"
    assert AllowedHosts("search.example,*", any_by_default=False).admit([(b"host", b"evil.example")])


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    """Return a file with an admin key."""
    file = tmp_path / "key"
    file.write_text(generate_key("a" * 16))
    return str(file)


@pytest.mark.parametrize("mode", ["auto", "open", "keys"])
def test_the_list_holds_in_every_mode(mode: str, key_file: str) -> None:
    keys = {"admin_key_file": key_file} if mode == "keys" else {}
    settings = Settings(encoder="standin", opensearch_url="http://127.0.0.1:9", access=mode, **keys)
    listed = settings.model_copy(update={"allowed_hosts": "search.example"})
    for chosen, allowed in ((settings, mode == "keys"), (listed, False)):
        with TestClient(create_app(chosen), base_url="http://localhost:8010") as client:
            assert client.get("/healthz").status_code == 200
            for path in ("/", "/healthz", "/v1/encoders"):
                answer = client.get(path, headers={"host": "evil.example:8010"})
                assert (answer.status_code == 403) is not allowed, path
                assert allowed or answer.json()["code"] == "host_forbidden"
    with TestClient(create_app(listed), base_url="http://search.example") as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/encoders").status_code == (401 if mode == "keys" else 200)
