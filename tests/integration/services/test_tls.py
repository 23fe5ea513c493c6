"""TLS connections: trusted authorities, client identity, and certificates that are replaced at runtime."""

import asyncio
import json
import logging
import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.errors import BackendUnavailable, ConfigurationError
from services.opensearch.client import AsyncSearchClient, Call, SyncSearchClient
from services.settings import Settings
from tests.certificates import Authority

ASK = Call("GET", "/")
SECRET = "s3cret:with@signs"


class _Handler(BaseHTTPRequestHandler):
    """A handler that answers with the name in the client's certificate and its Authorization header."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        subject = dict(part[0] for part in (self.connection.getpeercert() or {}).get("subject", ()))
        body = json.dumps({"name": subject.get("commonName"), "sent": self.headers["authorization"]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")  # so that each request uses its own connection
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    context: ssl.SSLContext

    def get_request(self) -> Any:
        connection, address = super().get_request()
        return self.context.wrap_socket(connection, server_side=True), address

    def handle_error(self, *_: Any) -> None:
        """Ignore the error, because the tests make clients disconnect."""


@contextmanager
def listening(certificate: tuple[Path, Path], clients: Path | None = None) -> Iterator[str]:
    """Run a server with this certificate.

    With `clients` it requires a client certificate that this authority signed.
    """
    server = _Server(("127.0.0.1", 0), _Handler)
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.context.load_cert_chain(*certificate)
    if clients:
        server.context.load_verify_locations(clients)
        server.context.verify_mode = ssl.CERT_REQUIRED
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def ask(settings: Settings, kind: str) -> Any:
    """Send a request over a new connection."""
    if kind == "threads":
        with closing(SyncSearchClient(settings)) as client:
            return client.send(ASK)

    async def once() -> Any:
        client = AsyncSearchClient(settings)
        try:
            return await client.send(ASK)
        finally:
            await client.close()

    return asyncio.run(once())


@pytest.mark.parametrize("kind", ["threads", "loops"])
class TestTrust:
    def test_a_private_authority_must_be_named(self, authority: Authority, kind: str) -> None:
        with listening(authority.sign("server", host="127.0.0.1")) as url:
            with pytest.raises(BackendUnavailable, match=r"not trusted \(unable to get.*opensearch_tls"):
                ask(Settings(opensearch_url=url), kind)
            assert ask(Settings(opensearch_url=url, opensearch_ca=authority.ca), kind)["name"] is None

    def test_another_authority_does_not_do(self, authority: Authority, tmp_path: Path, kind: str) -> None:
        other = Authority(tmp_path, "other")
        with listening(authority.sign("server", host="127.0.0.1")) as url, pytest.raises(BackendUnavailable) as caught:
            ask(Settings(opensearch_url=url, opensearch_ca=other.ca), kind)
        assert caught.value.code == "opensearch_tls"

    @pytest.mark.parametrize(
        ("certificate", "said"),
        [({"host": "127.0.0.2"}, "IP address mismatch"), ({"host": "127.0.0.1", "days": -1}, "has expired")],
    )
    def test_a_wrong_certificate_is_refused_and_says_why(
        self, authority: Authority, kind: str, certificate: dict[str, Any], said: str
    ) -> None:
        with listening(authority.sign("server", **certificate)) as url:
            with pytest.raises(BackendUnavailable, match=said) as caught:
                ask(Settings(opensearch_url=url, opensearch_ca=authority.ca), kind)
            assert "127.0.0" not in caught.value.detail, "an answer of the API does not tell where we look for it"

    def test_it_is_checked_unless_that_is_turned_off_by_name(
        self, authority: Authority, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with listening(authority.sign("server", host="127.0.0.2")) as url:
            ask(Settings(opensearch_url=url, opensearch_verify=False), kind)
        assert "OPENSEARCH_VERIFY is off" in caplog.text

    def test_user_and_password_are_sent_and_never_said(
        self, authority: Authority, kind: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        caplog.set_level(logging.DEBUG)
        file = tmp_path / "password"
        file.write_text(SECRET)
        with listening(authority.sign("server", host="127.0.0.1")) as url:
            given = {"opensearch_url": url, "opensearch_ca": authority.ca}
            sent = [
                ask(Settings(**given, opensearch_user="api", opensearch_password=SECRET), kind)["sent"],
                ask(Settings(**given, opensearch_user="api", opensearch_password_file=file), kind)["sent"],
                ask(Settings(opensearch_ca=authority.ca, opensearch_url=url.replace("//", "//api:plain@")), kind)[
                    "sent"
                ],
            ]
        assert sent == ["Basic YXBpOnMzY3JldDp3aXRoQHNpZ25z"] * 2 + ["Basic YXBpOnBsYWlu"]
        for secret in ("s3cret", "plain", "YXBp"):
            assert secret not in caplog.text.replace(f'"sent": "{sent[0]}"', "").replace(f'"sent": "{sent[2]}"', "")

    def test_our_certificate_says_who_we_are(self, authority: Authority, tmp_path: Path, kind: str) -> None:
        cert, key = authority.sign("worker")
        both = tmp_path / "both.pem"
        both.write_text(cert.read_text() + key.read_text())
        stranger = Authority(tmp_path, "stranger").sign("stranger's")
        with listening(authority.sign("server", host="127.0.0.1"), authority.ca) as url:
            given = {"opensearch_url": url, "opensearch_ca": authority.ca}
            assert ask(Settings(**given, opensearch_cert=cert, opensearch_key=key), kind)["name"] == "worker"
            assert ask(Settings(**given, opensearch_cert=both), kind)["name"] == "worker"
            for wrong in ({}, {"opensearch_cert": stranger[0], "opensearch_key": stranger[1]}):
                with pytest.raises(BackendUnavailable):
                    ask(Settings(**given, **wrong), kind)


def test_a_certificate_that_is_replaced_is_read_again(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ours = tmp_path / "ours.pem", tmp_path / "ours.key"

    def place(pair: tuple[Path, Path]) -> None:
        for source, target in zip(pair, ours, strict=True):
            shutil.copy(source, tmp_path / "next")
            (tmp_path / "next").rename(target)

    place(authority.sign("first"))
    with listening(authority.sign("server", host="127.0.0.1"), authority.ca) as url:
        settings = Settings(
            opensearch_url=url, opensearch_ca=authority.ca, opensearch_cert=ours[0], opensearch_key=ours[1]
        )
        with closing(SyncSearchClient(settings)) as client:
            assert client.send(ASK)["name"] == "first"
            second = authority.sign("second")
            shutil.copy(second[0], ours[0])
            assert client.send(ASK)["name"] == "first", "the key does not belong to it yet"
            assert "are not usable yet" in caplog.text
            place(second)
            assert client.send(ASK)["name"] == "second"
            ours[0].unlink()
            assert client.send(ASK)["name"] == "second", "while the file is away"


def test_an_authority_may_be_replaced_by_both(authority: Authority, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted.pem"
    shutil.copy(authority.ca, trusted)
    new = Authority(tmp_path, "new")
    certificates = authority.sign("old", host="127.0.0.1"), new.sign("n", host="127.0.0.1")
    with listening(certificates[0]) as one, listening(certificates[1]) as two:
        client = SyncSearchClient(Settings(opensearch_url=f"{one},{two}", opensearch_ca=trusted))
        with closing(client):
            client.send(ASK)
            trusted.write_text(trusted.read_text() + new.ca.read_text())
            assert [client.send(ASK)["name"] for _ in range(4)] == [None] * 4


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"opensearch_ca": "missing"}, "SPARSEWELL_OPENSEARCH_CA=.*missing cannot be used: No such file"),
        ({"opensearch_ca": "garbage"}, "SPARSEWELL_OPENSEARCH_CA=.*garbage cannot be used: no certificate"),
        ({"opensearch_cert": "ours.pem", "opensearch_key": "other.key"}, "CERT=.* with .*KEY=.*: key values mismatch"),
        ({"opensearch_cert": "ours.pem"}, "SPARSEWELL_OPENSEARCH_CERT=.*ours.pem cannot be used"),
        ({"opensearch_cert": "ours.pem", "opensearch_key": "encrypted.key"}, "the key is encrypted"),
    ],
)
def test_files_of_no_use_stop_the_start(authority: Authority, tmp_path: Path, files: dict[str, str], said: str) -> None:
    authority.sign("ours")
    authority.sign("other")
    (tmp_path / "garbage").write_text("garbage")
    encrypt(tmp_path / "ours.key", tmp_path / "encrypted.key")
    given = {name: tmp_path / file for name, file in files.items()}
    with pytest.raises(ConfigurationError, match=said) as caught:
        SyncSearchClient(Settings(opensearch_url="https://h", **given))
    assert caught.value.code == "bad_certificate"


def encrypt(key: Path, target: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    target.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
