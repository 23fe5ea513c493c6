"""HTTP/1.1 connections that cannot hold the server: uvicorn's own, with limits that it lacks.

A sender of a head has so many seconds and bytes for it (uvicorn waits for ever, and takes any number), who does not
read its answer is let go, and there are never more connections than the process has room for. Ten thousand that send
nothing hold 5 KB each, measured; without a time they would hold the last file descriptor as well. A few beyond them
are heard out for whether they are a probe: a process that is full is not dead, and must not be restarted for it.

Fields behind a body (trailers) are thrown away: uvicorn adds them to the headers, after a proxy and the gate have read
those, and as many as somebody sends.

A uvicorn server that still answers for some seconds after SIGTERM.
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

# Files and connections of the process beside those of clients: to OpenSearch, Redis, logs, libraries.
_RESERVED_FILES = 256
# Beyond the limit, for probes; whoever takes one has a second to say what it wants. A kubelet asks once in seconds.
_SPARE_CONNECTIONS = 64
_SPARE_SECONDS = 1.0
_PROBES = (b"/healthz", b"/readyz")
# After a refusal, in which whatever comes is thrown away.
_LINGER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """`head_seconds` from when a connection is there, or the request before was answered, to the end of a head;
    `stall_seconds` that an answer may wait for its reader; `connections` at once, of one process, beside those of
    probes; `idle_seconds` between two requests.

    A proxy in front must be the one that ends an idle connection (nginx and Amazon's load balancers after 60 s): else
    now and then it sends a request into one that ends, and answers 502.
    """

    head_seconds: float = 10.0
    head_bytes: int = 65_536
    stall_seconds: float = 60.0
    connections: int = 10_000
    idle_seconds: int = 75

    @classmethod
    def of(cls, settings: Settings) -> "ConnectionLimits":
        """Those that the settings give."""
        return cls(
            settings.head_seconds,
            settings.max_head_bytes,
            settings.stall_seconds,
            settings.max_connections,
            settings.idle_seconds,
        )

    def within_files(self) -> "ConnectionLimits":
        """With no more connections than the process may have files; its own limit is raised as far as it goes."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = self.connections + _SPARE_CONNECTIONS + _RESERVED_FILES
        if soft != resource.RLIM_INFINITY and soft < wanted:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            with contextlib.suppress(ValueError, OSError):  # some systems forbid it
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return replace(self, connections=max(1, min(self.connections, soft - _SPARE_CONNECTIONS - _RESERVED_FILES)))
        return self


class BoundedConnection(HttpToolsProtocol):
    """One connection. Made by uvicorn, with its own arguments beside `limits`."""

    def __init__(self, limits: ConnectionLimits, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._moved = False  # whether what came brought a head to its end, or bytes of a body
        self._arrived = 0  # bytes since then: of a head that is not whole yet, or beside a body (trailers, for one)
        self._size = 0  # bytes of the fields of a head, and of those behind its body
        self._refused = False
        self._in_body = False
        self._is_spare = False
        self._head_seconds = limits.head_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
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
        self._moved = False
        super().data_received(data)
        self._arrived = 0 if self._moved else self._arrived + len(data)
        if max(self._arrived, self._size) > self._limits.head_bytes and not self._refused:
            self._too_large()
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
        self._in_head, self._moved = False, True
        self._head_timer = _cancel_timer(self._head_timer)
        if self._size > self._limits.head_bytes:
            self._too_large()
        elif self._is_spare and self.url not in _PROBES:
            detail = f"This process serves {self._limits.connections:,} connections (SPARSEWELL_MAX_CONNECTIONS)."
            self._refuse(503, "Service Unavailable", "too_many_connections", detail)
        if not self._refused:
            self._in_body = True
            super().on_headers_complete()
            if self._is_spare:
                self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._moved = True
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body, self._moved = False, True
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and not self._refused:
            # answered before its body was all there: what still comes would be read and thrown away for ever
            self.loop.call_later(_LINGER_SECONDS, self._let_go, self.cycle)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self._limits.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._stall_timer = _cancel_timer(self._stall_timer)
        super().resume_writing()

    def _let_go(self, answered: object) -> None:
        if self._in_body and self.cycle is answered and not self.transport.is_closing():
            self._refused = True
            self.transport.close()

    def _watch(self) -> None:
        """A head is waited for, and nothing else ends the wait: neither an answer under way nor uvicorn's own timer."""
        answering = self.cycle is not None and not self.cycle.response_complete
        idle = self.timeout_keep_alive_task is not None
        if self._head_timer is None and not answering and not idle and not self._refused:
            self._head_timer = self.loop.call_later(self._head_seconds, self._too_late)

    def _too_late(self) -> None:
        if self._arrived:
            detail = f"The head of a request has {self._head_seconds:g} s to arrive."
            self._refuse(408, "Request Timeout", "head_too_slow", detail)
        else:
            self._refused = True
            self.transport.close()

    def _too_large(self) -> None:
        detail = f"Address and headers may have {self._limits.head_bytes:,} bytes together (SPARSEWELL_MAX_HEAD_BYTES)."
        self._refuse(431, "Request Header Fields Too Large", "head_too_large", detail)

    def send_400_response(self, msg: str) -> None:
        """In the place of uvicorn's: counted, and worded as everything else that is refused."""
        self._refuse(400, "Bad Request", "bad_http", "What came is no request of HTTP/1.1, or one with two endings.")

    def _refuse(self, status: int, reason: str, code: str, detail: str) -> None:
        self._refused = True
        self._head_timer = _cancel_timer(self._head_timer)
        if self.cycle is not None and (self._in_body or not self.cycle.response_complete):
            # Another answer is on its way, or this one is; else nobody may write behind what is said here.
            if self.pipeline or self.cycle.response_started:
                PROBLEMS.labels(code).inc()
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = bytes(problem_response(status, reason, code, detail).body)
        head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/problem+json\r\nconnection: close\r\n"
        self.transport.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        # Closed at once, the kernel would answer what is still sent with a reset, and that takes the answer with it.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


def _cancel_timer(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Nothing in the place of a timer."""
    if timer is not None:
        timer.cancel()
    return None


def bounded_protocol(limits: ConnectionLimits) -> Callable[..., asyncio.Protocol]:
    """What uvicorn takes as `http`."""

    def make(*args: Any, **kwargs: Any) -> asyncio.Protocol:
        return BoundedConnection(limits, *args, **kwargs)

    return make


# Time for running requests after the server accepts no new ones.
GRACE_SECONDS = 10


class DrainingServer(uvicorn.Server):
    """A server that calls `drain` on SIGTERM and stops `seconds` later; on a second signal or Ctrl-C it stops at once.

    Load balancers need that time: they send requests until they have seen that the server is not ready.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None], seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._seconds = seconds
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        first, self._told = not self._told, True
        self._drain()
        if sig != signal.SIGTERM or not first or not self._seconds:
            super().handle_exit(sig, frame)
            return
        timer = threading.Timer(self._seconds, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()


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
        http=bounded_protocol(limits.within_files()),  # type: ignore[arg-type]  # called as a class is
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=limits.idle_seconds,
    )
    DrainingServer(config, drain, seconds).run(sockets=[listener])


def print_port(listener: socket.socket) -> None:
    """Print the address with the real port. Tools that start the process read this line."""
    print(f"listening on {format_http_address(*listener.getsockname()[:2])}", flush=True)  # noqa: T201


def open_listener(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ConfigurationError (`bad_port`, `port_in_use`, `cannot_listen`)."""
    if not 0 <= port <= 65535:
        raise ConfigurationError("bad_port", f"{port} is not a port: choose 1 to 65535, or 0 for a free port.")
    # An IPv6 address has colons, a name or an IPv4 address never; "::" takes both kinds where the system can.
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
