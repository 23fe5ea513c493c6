"""Hostile requests: smuggled requests, paths, endless bodies. The service refuses them and continues.

../services/test_connections_of_clients.py tests request heads.
"""

import gzip
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing

import httpx
import pytest
from prometheus_client import generate_latest

from services.settings import Settings
from tests.problem_counts import problems


def raw(settings: Settings, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send raw bytes. Return the answer until the connection ends or is silent for a second."""
    with closing(socket.create_connection((settings.api_host, settings.api_port), timeout=5)) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:
                break
            time.sleep(pause)
        connection.settimeout(1.5)
        found = b""
        try:
            while chunk := connection.recv(65536):
                found += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return found


@pytest.fixture(autouse=True)
def lives_on(api: httpx.Client) -> object:
    yield
    assert api.get("/healthz").status_code == 200


SMUGGLED = [
    b"content-length: 4\r\ntransfer-encoding: chunked\r\n",
    b"transfer-encoding: chunked\r\ncontent-length: 4\r\n",
    b"content-length: 4\r\ncontent-length: 5\r\n",
    b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
    b"transfer-encoding: xchunked\r\n",
    b"content-length: -1\r\n",
    b"content-length: 4x\r\n",
    b"content-length : 4\r\n",
    b" content-length: 4\r\n",
    b"a\0b: 4\r\n",
]


# (one test a list, because the start of an API takes longer than all entries of a list)
def test_a_request_that_two_readers_would_end_differently_is_refused(settings: Settings) -> None:
    smuggled = b"GET /healthz HTTP/1.1\r\nhost: smuggled\r\n\r\n"
    for head in SMUGGLED:
        found = raw(settings, b"POST /v1/search HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n0\r\n\r\n" + smuggled)
        assert b" 200 " not in found, head
        assert b"bad_http" in found, head
    # the control: after a request with valid framing, the API also answers the next request
    for head in (b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n"):
        found = raw(settings, b"POST /v1/search HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n0\r\n\r\n" + smuggled)
        assert b" 200 " in found, head


NAMES = [
        "..", "%2e%2e", "%2E%2E%2Fetc", "a%2Fb", "_all", "*", "a*", "a,b", "-a", "A", "a.g000001", "%00", "a%00",
        "%3Ca%7Bnow%2Fd%7D%3E", "a%20b", "a%0Ab", "a%5Cb", "%C3%A9", "a%23", "x" * 101, ".ds", "_jobs", "a:b",
    ]  # fmt: skip


def test_tricks_in_the_name_of_an_index(admin: httpx.Client) -> None:
    for name in ("a", "b"):  # (some of the names would match them)
        assert admin.put(f"/v1/indexes/{name}").status_code == 201
    for name in NAMES:
        for method, below in (
            ("PUT", ""), ("GET", ""), ("DELETE", ""), ("POST", "/search"), ("GET", "/export"), ("POST", "/documents"),
            ("GET", "/documents/1"), ("GET", "/curation"), ("GET", "/queries"), ("GET", "/suggest?q=a"),
        ):  # fmt: skip
            body = {"json": {"query": "x"}} if below == "/search" else {"json": []} if method == "POST" else {}
            answer = admin.request(method, f"/v1/indexes/{name}{below}", **body)  # type: ignore[arg-type]
            assert answer.status_code in (404, 405, 422, 503) or (answer.status_code, name) == (200, ".."), answer.text
            assert answer.status_code != 503, answer.text
    assert [one["name"] for one in admin.get("/v1/indexes").json()["indexes"]] == ["a", "b"]


IDS = ["..%2F..%2F_search", "%2e%2e", "_mapping", "a%2F_doc%2Fb", "%00", "a%0A", "*"]


def test_tricks_in_the_id_of_a_document(admin: httpx.Client) -> None:
    admin.put("/v1/indexes/books")
    for document_id in IDS:
        for method in ("GET", "DELETE"):
            answer = admin.request(method, f"/v1/indexes/books/documents/{document_id}")
            assert answer.status_code in (404, 422), answer.text
    assert admin.get("/v1/indexes/books").status_code == 200


def test_a_compressed_body_is_not_unpacked(admin: httpx.Client) -> None:
    """A megabyte of such bodies unpacks to a gigabyte."""
    admin.put("/v1/indexes/books")
    bomb = gzip.compress(b"[" + b" " * 50_000_000 + b"]")
    for path in ("documents", "search", "curation/dry-run"):
        for coding in ("gzip", "br", "deflate", "zstd", "identity, gzip"):
            headers = {"content-encoding": coding, "content-type": "application/json"}
            answer = admin.post(f"/v1/indexes/books/{path}", content=bomb, headers=headers)
            assert answer.status_code in (415, 422), answer.text


def test_lines_without_an_end_stop_at_the_limit(
    settings: Settings, admin_key: str, live_api: Callable[[Settings], AbstractContextManager[str]], free: int
) -> None:
    limited = settings.model_copy(update={"max_stream_bytes": 1_000_000, "api_port": free})
    line = b'{"id":"1","text":"' + b"x" * 1000 + b'"}\n' + b"\n" * 64_000
    head = (
        "POST /v1/indexes/books/documents HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
        f"content-type: application/x-ndjson\r\nauthorization: Bearer {admin_key}\r\n\r\n"
    ).encode()
    before = problems("body_too_large")
    with live_api(limited) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        client.headers["authorization"] = f"Bearer {admin_key}"
        assert client.put("/v1/indexes/books").status_code == 201
        with closing(socket.create_connection(("127.0.0.1", free), timeout=30)) as connection:
            connection.sendall(head)
            with pytest.raises(OSError):  # (the API answers the request and soon stops reading)
                while True:
                    connection.sendall(b"%x\r\n%b\r\n" % (len(line), line))
        assert sum(client.get("/v1/indexes/books").json()["documents"].values()) <= 1
        assert problems("body_too_large") == before + 1, "counted although some was taken"
        assert client.get("/v1/indexes/books/documents/1").status_code == 200


@pytest.fixture
def free() -> int:
    from infra.ports import find_free_port

    return find_free_port()


def test_no_key_is_in_any_answer_log_or_metric(
    admin: httpx.Client, admin_key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    key = admin.post("/v1/keys", json={"name": "x", "scopes": ["search"]}).json()["key"]
    tokens = (admin_key, key, admin_key[:-1], key + "x", f"{key} x")
    paths = "/v1/indexes?api_key={}", "/v1/indexes/none/search?q=x", "/v1/keys", "/v1/keys/{}", "/v1/keys/{}/rotate"
    texts = [
        admin.request(method, path.format(token), headers={"authorization": f"Bearer {one}"}).text
        for token in tokens
        for one in (token, admin_key)
        for path in paths
        for method in ("GET", "POST", "DELETE")
    ]
    secrets = [one.rsplit("_", 1)[1][:20] for one in (admin_key, key)]
    texts.append(generate_latest().decode())
    assert 'sparsewell_problems_total{code="bad_key"}' in texts[-1]
    others = ("httpx", "httpcore", "uvicorn.access")  # (outside tests uvicorn's request log is off)
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith(others)]
    assert len(logged) > 10
    for text in (*logged, *texts):
        assert not any(secret in text for secret in secrets), text
