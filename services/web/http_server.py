"""The HTTP/1.1 server: uvicorn with limits per connection, and a shutdown that drains load balancers first.

uvicorn waits without end for the head of a request and accepts any size of it. Here a head has a time and a size limit,
a client that does not read its answer is disconnected, and connections never exceed the process's capacity. Ten
thousand idle connections take 5 KB each (measured); without a time limit they would take the last file descriptor as
well. Some spare connections beyond the limit serve only probes, because a full process is not dead and must not be
restarted.

Trailers (fields after a body) are discarded. uvicorn would add them to the headers, without a limit, after a proxy and
the access check have read the headers.
"""

import asyncio
import contextlib
import errno
import resource
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.errors import ConfigurationError
from services.settings import Settings, format_http_address
from services.telemetry.metrics import PROBLEMS
from services.web.problems import problem_response

# File descriptors reserved for other purposes than clients: OpenSearch, Redis, logs, libraries.
_RESERVED_FILES = 256
# Connections beyond the limit, for probes. Each has a second to send its head; a kubelet probes every few seconds.
_SPARE_CONNECTIONS = 64
_SPARE_SECONDS = 1.0
_PROBES = (b"/healthz", b"/readyz")
# After a refusal, incoming data is discarded for this long.
_LINGER_SECONDS = 1.0

# Time for running requests after the server stops accepting connections.
GRACE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of the connections of one process.

    `head_seconds`: from the start of a connection, or the previous answer, to the end of a head. `stall_seconds`: how
    long an answer waits for its reader. `connections`: at once, without those of probes. `idle_seconds`: between two
    requests.

    A proxy in front must close idle connections first (nginx and Amazon's load balancers do so after 60 s). Otherwise
    it now and then sends a request into a closing connection and answers 502.
    """

    head_seconds: float = 10.0
    head_bytes: int = 65_536
    stall_seconds: float = 60.0
    connections: int = 10_000
    idle_seconds: int = 75

    @classmethod
    def of(cls, settings: Settings) -> "ConnectionLimits":
        """Return the limits of the settings."""
        return cls(
            settings.head_seconds,
            settings.max_head_bytes,
            settings.stall_seconds,
            settings.max_connections,
            settings.idle_seconds,
        )

    def within_files(self) -> "ConnectionLimits":
        """Raise the process's file limit as far as needed and allowed, and cap `connections` to fit it."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = self.connections + _SPARE_CONNECTIONS + _RESERVED_FILES
        if soft != resource.RLIM_INFINITY and soft < needed:
            soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
            with contextlib.suppress(ValueError, OSError):  # some systems forbid raising it
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return replace(self, connections=max(1, min(self.connections, soft - _SPARE_CONNECTIONS - _RESERVED_FILES)))
        return self


class BoundedConnection(HttpToolsProtocol):
    """A connection. uvicorn creates it with its own arguments beside `limits`."""

    def __init__(self, limits: ConnectionLimits, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._progressed = False  # whether the last data completed a head or belonged to a body
        self._arrived = 0  # bytes since then: of an incomplete head, or around a body (such as trailers)
        self._size = 0  # bytes of the fields in the head and in the trailers
        self._refused = False
        self._in_body = False
        self._is_spare = False
        self._head_seconds = limits.head_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's is narrower than asyncio's
        super().connection_made(transport)
        beyond = len(self.connections) - self._limits.connections
        if beyond > 0:
            self._is_spare = True
            self._head_seconds = min(self._head_seconds, _SPARE_SECONDS)
        if beyond > _SPARE_CONNECTIONS:
            self._refused = True
            transport.abort()
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer = _cancel_timer(self._head_timer)
        self._stall_timer = _cancel_timer(self._stall_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._progressed = False
        super().data_received(data)
        self._arrived = 0 if self._progressed else self._arrived + len(data)
        if max(self._arrived, self._size) > self._limits.head_bytes and not self._refused:
            self._refuse_large_head()
        self._watch()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._arrived, self._size = True, 0, 0

    def on_url(self, url: bytes) -> None:
        self._size += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._progressed = False, True
        self._head_timer = _cancel_timer(self._head_timer)
        if self._size > self._limits.head_bytes:
            self._refuse_large_head()
        elif self._is_spare and self.url not in _PROBES:
            detail = f"All {self._limits.connections:,} connections are in use (SPARSEWELL_MAX_CONNECTIONS)."
            self._refuse(503, "Service Unavailable", "too_many_connections", detail)
        if not self._refused:
            self._in_body = True
            super().on_headers_complete()
            if self._is_spare:
                self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._progressed = True
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body, self._progressed = False, True
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and not self._refused:
            # The answer came before the whole body: the rest would be read and discarded without end.
            self.loop.call_later(_LINGER_SECONDS, self._close_unread, self.cycle)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self._limits.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._stall_timer = _cancel_timer(self._stall_timer)
        super().resume_writing()

    def _close_unread(self, answered: object) -> None:
        if self._in_body and self.cycle is answered and not self.transport.is_closing():
            self._refused = True
            self.transport.close()

    def _watch(self) -> None:
        """Start the head timer. Nothing else ends the wait: neither an answer in progress nor uvicorn's own timer."""
        answering = self.cycle is not None and not self.cycle.response_complete
        idle = self.timeout_keep_alive_task is not None
        if self._head_timer is None and not answering and not idle and not self._refused:
            self._head_timer = self.loop.call_later(self._head_seconds, self._on_head_timeout)

    def _on_head_timeout(self) -> None:
        if self._arrived:
            detail = f"The head of the request did not arrive within {self._head_seconds:g} s."
            self._refuse(408, "Request Timeout", "head_too_slow", detail)
        else:
            self._refused = True
            self.transport.close()

    def _refuse_large_head(self) -> None:
        detail = (
            f"Address and headers may have at most {self._limits.head_bytes:,} bytes together "
            "(SPARSEWELL_MAX_HEAD_BYTES)."
        )
        self._refuse(431, "Request Header Fields Too Large", "head_too_large", detail)

    def send_400_response(self, msg: str) -> None:
        """Answer with problem+json and count the error, in place of uvicorn's plain text."""
        detail = "This is not a valid HTTP/1.1 request, or its length is ambiguous."
        self._refuse(400, "Bad Request", "bad_http", detail)

    def _refuse(self, status: int, reason: str, code: str, detail: str) -> None:
        self._refused = True
        self._head_timer = _cancel_timer(self._head_timer)
        if self.cycle is not None and (self._in_body or not self.cycle.response_complete):
            # If an answer has already begun, the connection can only be cut. Otherwise the application must not write
            # after the refusal.
            if self.pipeline or self.cycle.response_started:
                PROBLEMS.labels(code).inc()
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = bytes(problem_response(status, reason, code, detail).body)
        head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/problem+json\r\nconnection: close\r\n"
        self.transport.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        # If we closed at once, the kernel would reset the connection on further data and the answer would be lost.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


def _cancel_timer(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer, if any, and return None to store in its place."""
    if timer is not None:
        timer.cancel()
    return None


def bounded_protocol(limits: ConnectionLimits) -> Callable[..., asyncio.Protocol]:
    """Return the protocol factory for uvicorn's option `http`."""

    def make(*args: Any, **kwargs: Any) -> asyncio.Protocol:
        return BoundedConnection(limits, *args, **kwargs)

    return make


def run_server(
    app: FastAPI,
    listener: socket.socket,
    limits: ConnectionLimits,
    drain: Callable[[], None] = lambda: None,
    seconds: float = 0.0,
) -> None:
    """Serve an application until a signal stops it."""
    config = uvicorn.Config(
        app,
        http=bounded_protocol(limits.within_files()),  # type: ignore[arg-type]  # uvicorn calls it like a class
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=limits.idle_seconds,
    )
    DrainingServer(config, drain, seconds).run(sockets=[listener])


class DrainingServer(uvicorn.Server):
    """A server that calls `drain` on SIGTERM and stops `seconds` later; a second signal or Ctrl-C stops it at once.

    Load balancers need that time: they send requests until they notice that the server is not ready.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None], seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._seconds = seconds
        self._signalled = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        is_first, self._signalled = not self._signalled, True
        self._drain()
        if sig != signal.SIGTERM or not is_first or not self._seconds:
            super().handle_exit(sig, frame)
            return
        timer = threading.Timer(self._seconds, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()


def open_listener(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ConfigurationError (`bad_port`, `port_in_use`, `cannot_listen`)."""
    if not 0 <= port <= 65535:
        raise ConfigurationError("bad_port", f"{port} is not a port: choose 1 to 65535, or 0 for a free port.")
    # Only IPv6 addresses have colons. "::" accepts IPv4 as well where the system can.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except UnicodeError:
        raise ConfigurationError("cannot_listen", f"{host!r} is not an address to listen on.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                "port_in_use",
                f"Port {port} on {host} is in use: stop the other process, or set SPARSEWELL_API_PORT.",
            ) from None
        raise ConfigurationError("cannot_listen", f"Cannot listen on {host}:{port}: {error.strerror}.") from None


def print_port(listener: socket.socket) -> None:
    """Print the address with the actual port. Tools that start the process read this line."""
    print(f"listening on {format_http_address(*listener.getsockname()[:2])}", flush=True)  # noqa: T201 (its purpose)
