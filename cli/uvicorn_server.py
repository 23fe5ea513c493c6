"""A uvicorn server that still answers for some seconds after SIGTERM."""

import errno
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from services.addresses import http_address
from services.errors import ConfigurationError
from services.web.connections import ConnectionLimits, bounded

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
        http=bounded(limits.within_files()),  # type: ignore[arg-type]  # called as a class is
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=limits.idle_seconds,
    )
    DrainingServer(config, drain, seconds).run(sockets=[listener])


def say_where(listener: socket.socket) -> None:
    """Print the address with the real port. Tools that start the process read this line."""
    print(f"listening on {http_address(*listener.getsockname()[:2])}", flush=True)


def listen(host: str, port: int) -> socket.socket:
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
