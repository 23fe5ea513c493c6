"""Settings of the connections: what fits together, what is refused, and that no secret is printed."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from kombu import Connection
from redis import Redis, SSLConnection

from services.errors import ConfigurationError
from services.settings import Settings, redact_addresses
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
        ({"REDIS_CA": "/c"}, "need addresses that begin with rediss://"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"SPARSEWELL_{name}", value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.read()
    assert caught.value.code == "bad_setting"
    assert said in caught.value.detail
    assert SECRET not in caught.value.detail


def test_no_secret_is_part_of_printed_settings() -> None:
    for settings in (
        Settings(opensearch_url="https://h", opensearch_user="u", opensearch_password=SECRET, redis_password=SECRET),
        Settings(opensearch_url="http://u:s3c@h", redis_url="redis://:s3c@h/0"),
    ):
        assert "s3c" not in f"{settings!r} {settings}"


def test_redis_gets_password_and_tls_in_its_address(tmp_path: Path) -> None:
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
def test_a_certificate_of_redis_is_checked_unless_one_says_otherwise(
    given: dict[str, str], query: dict[str, list[str]]
) -> None:
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
