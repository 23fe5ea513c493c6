"""The proxy treats connections as its rules say."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.faults.proxy import Proxy


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[bytes] = []  # noqa: RUF012 (one list for all requests is what is wanted)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append(body)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    _Echo.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with Proxy(server.server_address[1]) as one:
        yield one
    server.shutdown()
    thread.join()
    server.server_close()


def post(proxy: Proxy, body: bytes, **options: float) -> bytes:
    with httpx.Client(trust_env=False, **options) as client:  # type: ignore[arg-type]
        return client.post(proxy.url, content=body).content


def test_it_forwards_what_is_larger_than_a_piece(proxy: Proxy) -> None:
    body = b"x" * 300_000
    assert post(proxy, body) == body


def test_it_cuts_after_the_request_was_received_and_before_the_answer_comes(proxy: Proxy) -> None:
    proxy.cut_answers(b"secret", times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        post(proxy, b"secret")
    assert (_Echo.seen, proxy.cuts) == ([b"secret"], 1)
    assert post(proxy, b"secret") == b"secret"


def test_it_refuses_and_serves_again(proxy: Proxy) -> None:
    proxy.refuses = True
    with pytest.raises(httpx.TransportError):
        post(proxy, b"a")
    proxy.refuses = False
    assert post(proxy, b"a") == b"a"


def test_it_delays_and_holds(proxy: Proxy) -> None:
    proxy.delay = 0.2
    began = time.monotonic()
    post(proxy, b"a")
    assert time.monotonic() - began >= 0.2
    proxy.delay = 0
    proxy.hold()
    with pytest.raises(httpx.ReadTimeout):
        post(proxy, b"a", timeout=0.3)
    proxy.release()
    assert post(proxy, b"b") == b"b"


def test_it_cuts_all_connections(proxy: Proxy) -> None:
    with httpx.Client(timeout=30, trust_env=False) as client:
        assert client.post(proxy.url, content=b"a").content == b"a"
        proxy.cut_all()
        assert client.post(proxy.url, content=b"b").content == b"b"  # a new connection
