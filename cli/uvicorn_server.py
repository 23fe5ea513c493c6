"""uvicorn's server, with a time between the word to stop and the end in which it still answers."""

import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from services.web.connections import ConnectionLimits, bounded

# For requests under way once nothing new is taken.
GRACE_SECONDS = 10


class DrainingServer(uvicorn.Server):
    """SIGTERM is told to `drain` at once and stops the server `seconds` later; a second signal, or Ctrl-C, at once.

    Load balancers need that time: they send requests until they have seen that it is not ready.
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
    """Serves an application until a signal says stop."""
    config = uvicorn.Config(
        app,
        http=bounded(limits.within_files()),  # type: ignore[arg-type]  # called as a class is
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=limits.idle_seconds,
    )
    DrainingServer(config, drain, seconds).run(sockets=[listener])
