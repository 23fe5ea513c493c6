"""A small TCP proxy on loopback that can cut, delay, hold or refuse connections.

It uses threads and knows no protocol.
"""

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"
PIECE = 65536


class Proxy:
    """Forward connections to a port of this machine. Any thread may change the rules at any time."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0  # seconds before each piece of a response
        self.refuses = False  # closes connections as soon as they are open
        self.cuts = 0  # the number of connections that `cut_answers` cut
        self._match = b""
        self._left = 0
        self._held = threading.Event()
        self._held.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def cut_answers(self, match: bytes, times: int = 1) -> None:
        """Forward the next `times` requests that contain `match`, and end their connection at the response.

        The server has executed the request, and the sender does not know.
        """
        with self._lock:
            self._match, self._left = match, times

    def cut_all(self) -> None:
        """End every connection now."""
        with self._lock:
            several = list(self._open)
        for one in several:
            _end(one)

    def hold(self) -> None:
        """Hold all data and keep connections open, like a peer that hangs."""
        self._held.clear()

    def release(self) -> None:
        self._held.set()

    def close(self) -> None:
        self._closed = True
        self._held.set()
        _end(self._listener)
        self.cut_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="proxy", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.refuses:
            _end(client)
            return
        try:
            server = socket.create_connection((LOOPBACK, self.target), timeout=5)
        except OSError:
            _end(client)
            return
        server.settimeout(None)
        with self._lock:
            self._open |= {client, server}
        doomed = threading.Event()
        back = threading.Thread(target=self._answers, args=(server, client, doomed), name="proxy", daemon=True)
        back.start()
        try:
            while piece := client.recv(PIECE):
                self._held.wait()
                if self._takes(piece):
                    doomed.set()
                server.sendall(piece)
        except OSError:
            pass
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)
        back.join()
        with self._lock:
            self._open -= {client, server}
        _end(client)
        _end(server)

    def _answers(self, server: socket.socket, client: socket.socket, doomed: threading.Event) -> None:
        try:
            while piece := server.recv(PIECE):
                self._held.wait()
                if doomed.is_set():
                    break
                if self.delay:
                    time.sleep(self.delay)
                client.sendall(piece)
        except OSError:
            pass
        # the other direction waits for the client, and the client waits for this proxy
        _end(client)

    def _takes(self, piece: bytes) -> bool:
        with self._lock:
            if not self._left or self._match not in piece:
                return False
            self._left -= 1
            self.cuts += 1
            return True


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
