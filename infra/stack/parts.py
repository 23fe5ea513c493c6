"""The processes of the service: how each is started and how one sees that it is ready."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from infra import processes
from infra.processes import Child
from services.addresses import http_address
from services.errors import BackendUnavailable, EncoderMismatch
from services.manifest import MANIFEST, WEIGHTS_ROOT, as_path
from services.settings import Settings

# In the order of their ports, from SPARSEWELL_METRICS_PORT on.
METRICS_PORTS = ("api", "worker", "sweeper", "models")


@dataclass(frozen=True)
class Part:
    """A process of the service. `ready` looks once; it is asked again until it says yes."""

    name: str
    command: tuple[str, ...]
    address: str
    ready: Callable[[Child], bool]


def service_parts(settings: Settings) -> tuple[Part, ...]:
    """The service's own processes, in the order in which they are started.

    The model process is one of them where the API is told to ask the one that would listen here.
    """
    api = http_address(settings.api_host, settings.api_port)
    models = http_address(settings.model_host, settings.model_port)
    ready = partial(_is_healthy, models)
    here = settings.model_url.rstrip("/") == models
    return (
        *((Part("models", _command("models", "serve"), models, ready),) if here else ()),
        Part("worker", _command("worker"), "", lambda child: _worker_answers(settings)),
        Part("sweeper", _command("sweeper"), "", _lives_on),
        Part("api", _command("api"), api, lambda child: _api_is_ready(api)),
    )


def _command(*words: str) -> tuple[str, ...]:
    # The interpreter that runs us, so that the children have the same environment whatever the PATH says.
    return (sys.executable, "-m", "cli.main", *words)


def settings_environment(settings: Settings) -> dict[str, str]:
    """The environment variables that make a child read the same settings; only what differs from the defaults.

    A child works in another directory, so a relative path of an encoder becomes an absolute one.
    """
    chosen = settings.model_dump(exclude_defaults=True)
    # (a name of shipped weights comes first, as in services.manifest.resolve; what is neither is left for its error)
    if not (WEIGHTS_ROOT / settings.encoder / MANIFEST).is_file():
        directory = as_path(settings.encoder)
        if directory.is_dir():
            chosen["encoder"] = directory.resolve()
    return {f"SPARSEWELL_{name.upper()}": str(value) for name, value in chosen.items() if value is not None}


def metrics_environment(settings: Settings, part: str) -> dict[str, str]:
    """Of parts that share a machine each has a port of its own for its metrics, counted from that of the settings."""
    if not settings.metrics_port:
        return {}
    return {"SPARSEWELL_METRICS_PORT": str(settings.metrics_port + METRICS_PORTS.index(part))}


def wait_until_ready(part: Part, child: Child, timeout: float) -> None:
    """Returns once the part is ready; `part_died` or `part_not_ready`, with the end of its log, otherwise."""
    deadline = time.monotonic() + timeout
    while not part.ready(child):
        if not child.alive():
            raise BackendUnavailable(
                "part_died",
                f"The {part.name} ended while it started. The end of its log ({child.log}):\n"
                f"{processes.last_lines(Path(child.log))}",
            )
        if time.monotonic() > deadline:
            raise BackendUnavailable(
                "part_not_ready",
                f"The {part.name} was not ready within {timeout:.0f} s. The end of its log ({child.log}):\n"
                f"{processes.last_lines(Path(child.log))}",
            )
        time.sleep(0.2)


def _is_healthy(address: str, child: Child) -> bool:
    try:
        return httpx.get(f"{address}/healthz", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _api_is_ready(address: str) -> bool:
    try:
        answer = httpx.get(f"{address}/readyz", timeout=2, trust_env=False)
        problem = {} if answer.is_success else answer.json()
    except (httpx.HTTPError, ValueError):
        return False
    if problem.get("code") == "encoder_mismatch":
        # Waiting does not help: an index here was encoded with something that this API has no query table for.
        raise EncoderMismatch("encoder_mismatch", f"The API is up and refuses to search. {problem.get('detail', '')}")
    return answer.is_success


def _worker_answers(settings: Settings) -> bool:
    from celery import Celery
    from kombu.exceptions import OperationalError

    with Celery(broker=settings.redis_address, set_as_current=False) as app:
        try:
            return bool(app.control.ping(timeout=0.5, limit=1))
        except (OperationalError, OSError):
            return False


def _lives_on(child: Child) -> bool:
    """The sweeper serves nobody whom one could ask: it is ready once it has lived through its imports."""
    return child.alive() and time.time() - child.started > 1.5
