"""Start real processes, each with its own metrics port."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from infra.ports import find_free_port
from infra.processes import ChildProcess
from infra.stack import service_processes, wait_until_ready
from services.settings import Settings
from tests import conftest as shared


@dataclass
class Running:
    """A process and the address of its metrics."""

    child: ChildProcess
    metrics: str

    def samples(self) -> dict[str, float]:
        """Return values by name and labels in their text form: `name{label="value"}`."""
        answer = httpx.get(f"{self.metrics}/metrics", timeout=30, trust_env=False).raise_for_status()
        lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def log(self) -> str:
        return Path(self.child.log).read_text()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/metrics", timeout=30, trust_env=False).is_success
    except httpx.TransportError:
        return False


Start = Callable[..., Running]


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Provide `start(name, VARIABLE=value)`: start a process of the service and wait until it is ready."""
    started: list[ChildProcess] = []

    def begin(name: str, **environment: str) -> Running:
        port = find_free_port()
        service = next(service for service in service_processes(settings) if service.name == name)
        child = shared.launch_service(
            service,
            tmp_path / f"{name}-{len(started)}.log",
            environment=shared.child_environment(settings) | {"SPARSEWELL_METRICS_PORT": str(port)} | environment,
        )
        started.append(child)
        wait_until_ready(service, child, 60)
        running = Running(child, f"http://127.0.0.1:{port}")
        # (a sweeper counts as ready once it lives)
        shared.wait_for(lambda: _answers(running.metrics), 60, f"the {name} shows its metrics")
        return running

    yield begin
    for child in reversed(started):
        shared.end(child)
