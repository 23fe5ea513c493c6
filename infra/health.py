"""The health check of a container: `python -m infra.health api|models|worker|worker-alive|sweeper`, exit status
0 or 1 and a reason.

It is run inside the container of the process that it asks about, and reads the same settings.
"""

import http.client
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from services.settings import Settings

PROC_DIRECTORY = Path("/proc")


def check_api(settings: Settings) -> str | None:
    """None when `/readyz` of this container's API says 200, else what is wrong. A search needs no Redis."""
    return _check_http(settings.api_port, "/readyz")


def check_models(settings: Settings) -> str | None:
    """None when `/healthz` of this container's model process says 200, else what is wrong."""
    return _check_http(settings.model_port, "/healthz")


def _check_http(port: int, path: str) -> str | None:
    # Not urllib: it would ask a proxy, which containers often have in their environment, for an address of our own.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer on port {port}: {error}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{path} answered {status}"


def check_worker(settings: Settings) -> str | None:
    """None when the Celery worker of this host answers a ping through Redis, else what is wrong."""
    from celery import Celery
    from kombu.exceptions import OperationalError

    node = f"celery@{socket.gethostname()}"
    with Celery(broker=settings.redis_address, set_as_current=False) as app:
        for _ in range(2):  # a ping is published, not queued: one sent while a worker reconnects is lost
            try:
                # With a destination it is over as soon as that one has answered.
                if app.control.ping(destination=[node], timeout=5, connect_timeout=3):
                    return None
            except (OperationalError, OSError) as error:
                return f"Redis cannot be asked: {error}"
    return f"{node} did not answer"


# A worker's connections to Redis answer within 30 s or fail (indexer.celery_app), and it looks at its pool every 5 s.
WORKER_SECONDS = 40.0


def check_worker_alive(settings: Settings) -> str | None:
    """None when the worker's own process runs, else what is wrong.

    Redis is not asked: whoever starts a worker anew when this fails would start it anew for a Redis that is away.
    """
    return runs("worker", WORKER_SECONDS)


def check_sweeper(settings: Settings) -> str | None:
    """None when the sweeper woke up within a sweep's interval, else what is wrong.

    Or within the time of a request: it sleeps for so long while an OpenSearch that hangs, or that a policy shuts out,
    does not answer.
    """
    # (between two sweeps it waits for up to a fifth more than the interval)
    return runs("sweeper", max(1.2 * settings.sweep_interval, settings.opensearch_timeout) + 5)


def runs(command: str, seconds: float) -> str | None:
    """Return None when the process `sparsewell COMMAND` runs within `seconds`, else a complaint.

    It serves nobody whom one could ask, so the kernel is asked how often it ran: one that hangs in a call or is
    stopped does not gain a single context switch.
    """
    before = _count_wakeups(command)
    if before is None:
        return f"there is no {command} process"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if (now := _count_wakeups(command)) != before:
            return None if now is not None else f"the {command} ended"
    return f"the {command} did not run for {seconds:.0f} s"


def _count_wakeups(command: str) -> int | None:
    """Voluntary context switches of the main thread of the process `sparsewell COMMAND`; None when there is none.

    Of that thread alone: another one serves metrics, and wakes up twice a second whatever the rest does.

    Of several the first: the children of a worker, which look like it, are started after it.
    """
    for directory in sorted(PROC_DIRECTORY.glob("[0-9]*"), key=lambda directory: int(directory.name)):
        try:
            words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            # The init process of the container has the same words at its end, behind its own.
            if not any(Path(word).name == "sparsewell" for word in words[:2]) or command not in words:
                continue
            return _switches(directory / "task" / directory.name / "status")
        except OSError:  # not a process, or one that ended while it was read
            continue
    return None


def _switches(status: Path) -> int:
    name = "voluntary_ctxt_switches:"
    lines = status.read_text().splitlines()
    return next(int(line.removeprefix(name)) for line in lines if line.startswith(name))


CHECKS: dict[str, Callable[[Settings], str | None]] = {
    "api": check_api,
    "models": check_models,
    "worker": check_worker,
    "worker-alive": check_worker_alive,
    "sweeper": check_sweeper,
}


def main(arguments: list[str]) -> int:
    """Runs the check that the only argument names; the exit status for `sys.exit`."""
    if len(arguments) != 1 or arguments[0] not in CHECKS:
        print(f"Say which process to ask: {', '.join(CHECKS)}.", file=sys.stderr)
        return 2
    complaint = CHECKS[arguments[0]](Settings.read())
    print(f"{arguments[0]}: {complaint or 'healthy'}")
    return 0 if complaint is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
