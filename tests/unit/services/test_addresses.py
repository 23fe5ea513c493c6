"""Addresses of servers in settings: checked, derived from ports, never shown with a password."""

import pytest

from infra.settings import LocalSettings
from services.errors import ConfigurationError
from services.settings import Settings, format_http_address, redact_addresses, split_addresses


@pytest.fixture(autouse=True)
def no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENSEARCH_URL", "REDIS_URL", "OPENSEARCH_PORT", "REDIS_PORT"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"SPARSEWELL_{name}", raising=False)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://admin:s3cret@search:9200/path", "http://search:9200/path"),
        ("redis://:s3cret@127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://h/0?password=s3cret", "redis://h/0"),
        ("http://a@s3cret@h", "http://h"),
        ("http://[s3cret", "(an address that cannot be read)"),
        ("http://[::1]:8010", "http://[::1]:8010"),
        ("", ""),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert redact_addresses(url) == shown


@pytest.mark.parametrize("kind", [Settings, LocalSettings])
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("OPENSEARCH_URL", "http://"),
        ("OPENSEARCH_URL", "localhost:9200"),
        ("OPENSEARCH_URL", "redis://localhost"),
        ("OPENSEARCH_URL", "http://u:s3cret@h:99999"),
        ("OPENSEARCH_URL", "http://u:s3cret@h:port"),
        ("OPENSEARCH_URL", "http://u:s3/cret@h"),
        ("OPENSEARCH_URL", "http://[s3cret"),
        ("SPARSEWELL_OPENSEARCH_URL", "http://h:0"),
        ("REDIS_URL", "http://u:s3cret@h"),
        ("SPARSEWELL_REDIS_URL", "redis://"),
    ],
)
def test_an_unusable_address_is_refused_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, kind: type[Settings | LocalSettings], name: str, url: str
) -> None:
    monkeypatch.setenv(name, url)
    with pytest.raises(ConfigurationError) as caught:
        kind.read()
    assert caught.value.code == "bad_setting"
    assert name.removeprefix("SPARSEWELL_") in caught.value.detail
    assert "s3" not in caught.value.detail


def test_without_addresses_the_ports_of_the_local_servers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENSEARCH_URL", "")  # empty is unset
    monkeypatch.setenv("SPARSEWELL_OPENSEARCH_PORT", "19333")
    assert (Settings.read().opensearch_url, Settings.read().redis_url) == (
        "http://127.0.0.1:19333",
        "redis://127.0.0.1:16379/0",
    )
    assert LocalSettings.read().opensearch_url is None
    monkeypatch.setenv("OPENSEARCH_URL", "https://search")
    monkeypatch.setenv("SPARSEWELL_REDIS_PORT", "16444")
    assert (Settings.read().opensearch_url, Settings.read().redis_url) == (
        "https://search",
        "redis://127.0.0.1:16444/0",
    )

    monkeypatch.setenv("SPARSEWELL_REDIS_PORT", "0")
    assert Settings.read().redis_url.endswith(":0/0"), "the stack that starts it replaces it"


def test_an_ipv6_host_has_brackets() -> None:
    assert (format_http_address("::1", 80), format_http_address("localhost", 80)) == (
        "http://[::1]:80",
        "http://localhost:80",
    )


def test_opensearch_may_have_several_addresses_redis_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENSEARCH_URL", " http://u:a,b@one:9200 , https://two/search ")
    assert Settings.read().opensearch_url == "http://u:a,b@one:9200,https://two/search"
    assert split_addresses(Settings.read().opensearch_url) == ["http://u:a,b@one:9200", "https://two/search"]
    assert redact_addresses(Settings.read().opensearch_url) == "http://one:9200,https://two/search"
    for unusable in ("http://one,", "http://one,two", "http://one,http://u:s3cret@h:0", "http://one:9200,two:9200"):
        monkeypatch.setenv("OPENSEARCH_URL", unusable)
        with pytest.raises(ConfigurationError) as caught:
            Settings.read()
        assert caught.value.code == "bad_setting"
        assert "s3" not in caught.value.detail
