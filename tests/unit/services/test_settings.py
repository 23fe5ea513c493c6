"""Tests of settings: addresses, credentials, and settings that contradict each other."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from kombu import Connection
from redis import Redis, SSLConnection

from indexer.runtime import WorkerSettings
from infra.local_servers import LocalSettings
from services.errors import ConfigurationError
from services.settings import Settings, format_http_address, redact_addresses, split_addresses
from services.tls import SecretFile

TLS = {"opensearch_url": "https://search"}
SECRET = "s3c/r:e@t"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"OPENSEARCH_USER": "u"}, "OPENSEARCH_USER has no OPENSEARCH_PASSWORD"),
        ({"OPENSEARCH_PASSWORD": SECRET}, "has no OPENSEARCH_USER"),
        ({"OPENSEARCH_USER": "u", "OPENSEARCH_PASSWORD": SECRET, "OPENSEARCH_PASSWORD_FILE": "/f"}, "two passwords"),
        (
            {"OPENSEARCH_URL": f"https://a:{SECRET[:3]}@h", "OPENSEARCH_USER": "u", "OPENSEARCH_PASSWORD": SECRET},
            "OPENSEARCH_URL names a user already",
        ),
        ({"OPENSEARCH_KEY": "/k"}, "OPENSEARCH_KEY has no OPENSEARCH_CERT"),
        ({"OPENSEARCH_CA": "/c"}, "need addresses that begin with https://"),
        ({"OPENSEARCH_URL": "https://one,http://two", "OPENSEARCH_CERT": "/c"}, "need addresses that begin with"),
        ({"OPENSEARCH_AWS_REGION": "eu-west-1", "OPENSEARCH_USER": "u", "OPENSEARCH_PASSWORD": SECRET}, "signed"),
        ({"OPENSEARCH_AWS_REGION": "eu-west-1", "OPENSEARCH_URL": "https://u:p@h"}, "signed"),
        ({"OPENSEARCH_AWS_REGION": "a b"}, "OPENSEARCH_AWS_REGION"),
        ({"REDIS_URL": "redis://:p@h", "REDIS_PASSWORD": SECRET}, "REDIS_URL names a user already"),
        ({"REDIS_USER": "u"}, "REDIS_USER has no REDIS_PASSWORD"),
        ({"LISTWISE_LAYER": "3"}, "LISTWISE_LAYER needs SPARSEWELL_LISTWISE_METHOD=attention"),
        ({"REDIS_CA": "/c"}, "need addresses that begin with rediss://"),
    ],
)
def test_contradictory_connection_settings_are_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"SPARSEWELL_{name}", value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.read()
    assert caught.value.code == "bad_setting"
    assert said in caught.value.detail
    assert SECRET not in caught.value.detail


def test_printed_settings_contain_no_secret() -> None:
    for settings in (
        Settings(opensearch_url="https://h", opensearch_user="u", opensearch_password=SECRET, redis_password=SECRET),
        Settings(opensearch_url="http://u:s3c@h", redis_url="redis://:s3c@h/0"),
    ):
        assert "s3c" not in f"{settings!r} {settings}"


def test_the_redis_url_gets_password_and_tls(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    settings = Settings(
        redis_url="rediss://cache:6380/3", redis_user="u", redis_password_file=tmp_path / "password",
        redis_ca="/ca", redis_cert="/cert", redis_key="/key",
    )  # fmt: skip
    address = settings.redis_address
    assert redact_addresses(address) == "rediss://cache:6380/3"
    files = {"ssl_ca_certs": "/ca", "ssl_certfile": "/cert", "ssl_keyfile": "/key"}
    pool = Redis.from_url(address).connection_pool
    assert pool.connection_class is SSLConnection
    told = pool.connection_kwargs
    assert (told["username"], told["password"], told["db"]) == ("u", SECRET, 3)
    assert {name: told[name] for name in files} == files
    with Connection(address) as broker:
        assert (broker.userid, broker.password, broker.virtual_host) == ("u", SECRET, "3")
        assert {name: broker.ssl[name] for name in files} == files
        assert broker.ssl["ssl_cert_reqs"].name == "CERT_REQUIRED"
        assert SECRET not in f"{broker!r} {broker.as_uri()}"


@pytest.mark.parametrize(
    ("given", "query"),
    [
        ({"redis_url": "redis://h/1"}, {}),
        ({"redis_url": "rediss://h/1"}, {"ssl_cert_reqs": ["required"]}),
        (
            {"redis_url": "rediss://h/1", "redis_verify": False},
            {"ssl_cert_reqs": ["none"], "ssl_check_hostname": ["false"]},
        ),
        ({"redis_url": "rediss://h/1?ssl_cert_reqs=none"}, {"ssl_cert_reqs": ["none"]}),
    ],
)
def test_the_redis_certificate_is_verified_by_default(given: dict[str, str], query: dict[str, list[str]]) -> None:
    parts = urlsplit(Settings(**given).redis_address)
    assert parse_qs(parts.query) == query
    assert parts.netloc == "h"


def test_a_secret_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "password"
    file = SecretFile("OPENSEARCH_PASSWORD_FILE", path)
    with pytest.raises(ConfigurationError, match=r"No such file or directory.*bad_secret_file"):
        file.text()
    path.write_text("")
    with pytest.raises(ConfigurationError, match="it is empty"):
        file.text()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="it is not text"):
        file.text()
    path.write_text("one\n")
    assert file.text() == "one"
    new = tmp_path / "new"
    new.write_text("two ")
    new.rename(path)
    assert file.text() == "two ", "spaces may belong to a password"
    path.unlink()
    assert file.text() == "two ", "while it is replaced"


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
def test_passwords_are_redacted(url: str, shown: str) -> None:
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
def test_an_invalid_address_is_refused_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, kind: type[Settings | LocalSettings], name: str, url: str
) -> None:
    monkeypatch.setenv(name, url)
    with pytest.raises(ConfigurationError) as caught:
        kind.read()
    assert caught.value.code == "bad_setting"
    assert name.removeprefix("SPARSEWELL_") in caught.value.detail
    assert "s3" not in caught.value.detail


def test_addresses_default_to_the_ports_of_local_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENSEARCH_URL", "")  # an empty value is unset
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


def test_the_former_name_of_a_variable_is_read_and_the_new_name_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEWELL_MAX_SNAPSHOTS", "7")
    monkeypatch.setenv("SPARSEWELL_PATIENCE", "8")
    assert (Settings.read().max_points_in_time, WorkerSettings.read().retry_seconds) == (7, 8.0)
    monkeypatch.setenv("SPARSEWELL_MAX_POINTS_IN_TIME", "9")
    assert Settings.read().max_points_in_time == 9


def test_an_ipv6_host_has_brackets() -> None:
    assert (format_http_address("::1", 80), format_http_address("localhost", 80)) == (
        "http://[::1]:80",
        "http://localhost:80",
    )


def test_opensearch_may_have_several_addresses_and_redis_one(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_idempotency_keys_must_expire_before_their_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEWELL_JOB_DAYS", "1")
    assert Settings.read().job_days == 1
    monkeypatch.setenv("SPARSEWELL_IDEMPOTENCY_HOURS", "25")
    with pytest.raises(ConfigurationError, match="SPARSEWELL_JOB_DAYS"):
        Settings.read()
