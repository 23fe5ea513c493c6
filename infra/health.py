"""Health checks of the containers.

    python -m infra.health api|models|worker|worker-alive|sweeper

The exit status is 0 or 1, with a reason. A check runs inside the container of its process and reads the same settings.
API and model process are asked over HTTP, a worker by a Celery ping. The sweeper listens on no port, so its check
counts the context switches of the process (docs/decisions/0052).
"""

import http.client
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from services.settings import Settings

PROC_DIRECTORY = Path("/proc")
# A worker wakes up within this time: a request to Redis takes 30 s at most (indexer.celery_app), a look at the pool
# happens every 5 s.
WORKER_SECONDS = 40.0
# A worker answers a ping in milliseconds, and in seconds on a busy machine.
PING_SECONDS = 5.0
# A sweeper that is due may wait for a processor.
SWEEPER_MARGIN_SECONDS = 5.0


def check_api(settings: Settings) -> str | None:
    """Return None when `/readyz` of this container's API answers 200, else a complaint. A search needs no Redis."""
    return _check_http(settings.api_port, "/readyz")


def check_models(settings: Settings) -> str | None:
    """Return None when `/healthz` of this container's model process answers 200, else a complaint."""
    return _check_http(settings.model_port, "/healthz")


def _check_http(port: int, path: str) -> str | None:
    # urllib would send a request to our own address through the proxy that containers often have in the environment.
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
    """Return None when the Celery worker of this host answers a ping through Redis, else a complaint."""
    from celery import Celery
    from kombu.exceptions import OperationalError

    node = f"celery@{socket.gethostname()}"
    with Celery(broker=settings.redis_address, set_as_current=False) as app:
        for _ in range(2):  # a ping is published, not queued: a worker that reconnects misses it
            try:
                # With a destination, the call returns as soon as the worker has answered.
                if app.control.ping(destination=[node], timeout=PING_SECONDS, connect_timeout=3):
                    return None
            except (OperationalError, OSError) as error:
                return f"Redis cannot be asked: {error}"
    return f"{node} did not answer"


def check_worker_alive(settings: Settings) -> str | None:
    """Return None when the worker's main process runs, else a complaint.

    Redis is not asked: this check restarts the worker, and a restart does not bring a lost Redis back.
    """
    return check_process_runs("worker", WORKER_SECONDS)


def check_sweeper(settings: Settings) -> str | None:
    """Return None when the sweeper woke up within a sweep interval, else a complaint.

    While OpenSearch hangs, the sweeper sleeps for the timeout of a request, so the longer of the two times counts.
    """
    # The sweeper adds up to a fifth of the interval at random.
    return check_process_runs(
        "sweeper", max(1.2 * settings.sweep_interval, settings.opensearch_timeout) + SWEEPER_MARGIN_SECONDS
    )


def check_process_runs(command: str, seconds: float) -> str | None:
    """Return None when the process `sparsewell COMMAND` runs within `seconds`, else a complaint.

    The process listens on no port, so the kernel's count of its context switches decides: a process that hangs in a
    call or is stopped gains none.
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
    """Return the voluntary context switches of the main thread of `sparsewell COMMAND`; None: no such process.

    The thread that serves metrics wakes up twice a second in any state, so only the main thread counts. The children of
    a worker look like their parent and start after it, so the process with the lowest id counts.
    """
    for directory in sorted(PROC_DIRECTORY.glob("[0-9]*"), key=lambda directory: int(directory.name)):
        try:
            words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            # The container's init process has the same words in its command line, behind its own name.
            if not any(Path(word).name == "sparsewell" for word in words[:2]) or command not in words:
                continue
            return _voluntary_switches(directory / "task" / directory.name / "status")
        except OSError:  # the process ended meanwhile
            continue
    return None


def _voluntary_switches(status: Path) -> int:
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
    """Run the check that the only argument names; return the exit status."""
    if len(arguments) != 1 or arguments[0] not in CHECKS:
        print(f"Name one of the checks: {', '.join(CHECKS)}.", file=sys.stderr)
        return 2
    complaint = CHECKS[arguments[0]](Settings.read())
    print(f"{arguments[0]}: {complaint or 'healthy'}")
    return 0 if complaint is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
