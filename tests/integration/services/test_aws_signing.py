"""Signatures for Amazon: a published example, and opensearch-py's signer on the product's real requests."""

import asyncio
import datetime
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import botocore.auth
import botocore.session
import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import CredentialRetrievalError
from opensearchpy import RequestsAWSV4SignerAuth

from services.errors import BackendUnavailable, ConfigurationError
from services.opensearch.client import AsyncSearchClient, Call, SyncSearchClient
from services.opensearch.transport import AwsSignatureAuth, build_request_auth
from services.settings import Settings

# The key of Amazon's test suite for signature version 4.
KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
MOMENT = datetime.datetime(2015, 8, 30, 12, 36)


@pytest.fixture(autouse=True)
def a_fixed_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: MOMENT)


@pytest.fixture(autouse=True)
def the_test_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)


class Recorder:
    """A server that records its requests."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.seen.append((self.command, self.path, headers, body))
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the library's names

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with closing(Recorder()) as one:
        yield one


def test_the_key_and_moment_give_amazons_published_signature() -> None:
    """Check the oracle below with the suite's `get-vanilla-query-order-key-case`."""
    request = AWSRequest("GET", "https://example.amazonaws.com/?Param2=value2&Param1=value1")
    SigV4Auth(Credentials(KEY, SECRET), "service", "us-east-1").add_auth(request)
    assert request.headers["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
    )


CALLS = [
    Call("GET", "/sparsewell-books/_doc/a%20b%2Fc", params={"realtime": "true"}),
    Call(
        "POST", "/_msearch", b'{}\n{"query":{}}\n', {"max_concurrent_searches": 2, "filter_path": "a.*,b"}, ndjson=True
    ),
    Call("PUT", "/sparsewell-books", b'{"settings": {"\xc3\xa9": 1}}', timeout=5),
    Call("DELETE", "/_search/point_in_time"),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.path)
@pytest.mark.parametrize("kind", ["threads", "loops"])
def test_what_is_sent_is_signed_as_the_librarys_own_signer_signs_it(recorder: Recorder, call: Call, kind: str) -> None:
    settings = Settings(opensearch_url=recorder.url, opensearch_aws_region="eu-central-1")
    if kind == "threads":
        with closing(SyncSearchClient(settings)) as client:
            client.send(call)
    else:
        asyncio.run(_send(settings, call))
    ((method, path, headers, body),) = recorder.seen
    prepared = requests.Request(method, recorder.url + path, data=body or None).prepare()
    prepared.headers.clear()  # (the signer would also sign the length)
    signed = RequestsAWSV4SignerAuth(Credentials(KEY, SECRET), "eu-central-1", "es")(prepared).headers
    assert headers["authorization"] == signed["Authorization"]
    assert headers["x-amz-date"] == signed["X-Amz-Date"] == "20150830T123600Z"
    assert headers["x-amz-content-sha256"] == signed["X-Amz-Content-SHA256"]
    assert headers["host"] in recorder.url


async def _send(settings: Settings, call: Call) -> None:
    client = AsyncSearchClient(settings)
    try:
        await client.send(call)
    finally:
        await client.close()


def test_credentials_that_expire_are_renewed_by_a_thread(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def renewed(seconds: int = 7200) -> dict[str, str]:
        threads.append(threading.current_thread())
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        return {"access_key": KEY, "secret_key": SECRET, "token": f"t{len(threads)}", "expiry_time": end.isoformat()}

    credentials = RefreshableCredentials.create_from_metadata(renewed(60), refresh_using=renewed, method="test")
    monkeypatch.setattr("botocore.session.get_session", lambda: SimpleNamespace(get_credentials=lambda: credentials))
    settings = Settings(opensearch_url=recorder.url, opensearch_aws_region="eu-central-1")

    async def twice() -> None:
        client = AsyncSearchClient(settings)
        await client.send(CALLS[0])
        await client.send(CALLS[0])
        await client.close()

    asyncio.run(twice())
    assert [seen[2]["x-amz-security-token"] for seen in recorder.seen] == ["t2", "t2"]
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


def test_credentials_that_cannot_be_renewed_are_an_error_that_may_pass() -> None:
    class Gone:
        access_key = SECRET

        def get_frozen_credentials(self) -> None:
            raise CredentialRetrievalError(provider="x", error_msg=SECRET)

    with pytest.raises(BackendUnavailable) as caught:
        AwsSignatureAuth(Gone(), "eu-central-1").headers("GET", "https://h/", None)
    assert caught.value.code == "opensearch_unauthorized"
    assert SECRET not in str(caught.value)


def test_there_must_be_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.session.Session, "get_credentials", lambda _: None)
    with pytest.raises(ConfigurationError, match="no_aws_credentials"):
        build_request_auth(Settings(opensearch_url="https://h", opensearch_aws_region="eu-central-1"))
