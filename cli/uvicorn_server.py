"""A uvicorn server that still answers for some seconds after SIGTERM."""

import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

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
