"""Says every few seconds that this worker is there, from a thread of its parent process."""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version

from services.errors import BackendUnavailable
from services.manifest import Manifest
from services.presence import EVERY_SECONDS, Presence

log = logging.getLogger(__name__)


@contextmanager
def present(redis_url: str, manifest: Manifest, processes: int) -> Iterator[None]:
    """Inside the block this worker is among those that `Presence.workers` lists."""
    name, ended = f"{socket.gethostname()}:{os.getpid()}", threading.Event()
    presence = Presence(redis_url)

    def say() -> None:
        while True:
            with suppress(BackendUnavailable):  # Celery's own connection says so in the log
                presence.say(
                    name,
                    encoder=manifest.name,
                    fingerprint=manifest.fingerprint,
                    processes=processes,
                    version=version("sparsewell"),
                )
            if ended.wait(EVERY_SECONDS):
                return

    thread = threading.Thread(target=say, name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)
        with suppress(BackendUnavailable):
            presence.leave(name)
        presence.close()
