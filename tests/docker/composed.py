"""The system of docker-compose.yml in containers, run by podman-compose.

The file is used as it is. A second file has what differs for a test: free ports, the limits that this machine allows,
and a short pause of the sweeper.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra.ports import find_free_port
from tests.docker.engine import Podman, allowed_limits, run_checked

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE_FILE = REPOSITORY / "docker-compose.yml"


class _Override(list[str]):
    """A list that replaces the list of the first file. Compose would otherwise append it."""


class _Dumper(yaml.SafeDumper):
    """Write _Override with its tag."""


_Dumper.add_representer(_Override, lambda dumper, items: dumper.represent_sequence("!override", list(items)))


@dataclass(frozen=True)
class Composed:
    """A project of podman-compose. `ports`: the published port of each service on 127.0.0.1."""

    podman: Podman
    project: str
    override: Path
    ports: Mapping[str, int]
    environment: Mapping[str, str]

    def compose(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of podman-compose on both files."""
        files = ("--file", str(COMPOSE_FILE), "--file", str(self.override))
        command = [sys.executable, "-m", "podman_compose", "--project-name", self.project, *files]
        profiles = ("--profile", "rerank")
        return run_checked([*command, *profiles, *words], self.environment, cwd=REPOSITORY)

    def up(self, *services: str) -> None:
        """Create or change the containers of the services, and start them. No image is built or pulled."""
        self.compose("up", "--detach", "--no-build", *services)

    def container(self, service: str) -> str:
        """Return the identifier of the container of a service."""
        labels = {"io.podman.compose.project": self.project, "com.docker.compose.service": service}
        filters = [word for name, value in labels.items() for word in ("--filter", f"label={name}={value}")]
        return self.podman.run("ps", "--all", "--quiet", *filters).stdout.strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """Return podman's description of the container of a service."""
        return json.loads(self.podman.run("inspect", self.container(service)).stdout)[0]

    def is_healthy(self, service: str) -> bool:
        """Run the health check of docker-compose.yml in the container."""
        return self.podman.run("healthcheck", "run", self.container(service), check=False).returncode == 0

    def logs(self, service: str) -> str:
        """Return what the processes of a service wrote."""
        done = self.podman.run("logs", "--tail", "60", self.container(service), check=False)
        return done.stdout + done.stderr

    def wait(self, eventually: Callable[..., None], *services: str) -> None:
        """Return once the services are healthy; fail with the log of the first that is not."""
        for service in services:
            try:
                eventually(lambda each=service: self.is_healthy(each), 120, f"{service} is healthy")
            except BaseException as error:
                error.add_note(self.logs(service))
                raise

    def wait_until_restarted(self, eventually: Callable[..., None], service: str, former: int) -> None:
        """Return once another process than `former` is the first of the container; fail with podman's description."""
        try:
            eventually(lambda: self.inspect(service)["State"]["Pid"] not in (0, former), 60, f"{service} runs again")
        except BaseException as error:
            error.add_note(f"{self.inspect(service)['State']}\n{self.logs(service)}")
            raise

    def down(self) -> None:
        """Remove containers, network and volumes."""
        self.compose("down", "--volumes", "--timeout", "1")


def write_override(file: Path, tag: str | None = None) -> dict[str, int]:
    """Write the second file and return the published ports. `tag`: the images of ours, instead of the file's."""
    told = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    ports = {name: find_free_port() for name in ("opensearch", "redis", "api")}
    inner = {"opensearch": 9200, "redis": 6379, "api": 8010}
    services: dict[str, dict[str, Any]] = {
        name: {"ports": _Override([f"127.0.0.1:{port}:{inner[name]}"])} for name, port in ports.items()
    }
    services["opensearch"]["ulimits"] = allowed_limits(told["opensearch"]["ulimits"])
    # its health check waits until it wakes up, and what a killed Redis lost is enqueued then
    services["sweeper"] = {"environment": {"SPARSEWELL_SWEEP_INTERVAL": "1"}}
    if tag:
        for name, service in told.items():
            if "build" in service:
                services.setdefault(name, {})["image"] = f"{service['image'].partition(':')[0]}:{tag}"
    file.write_text(yaml.dump({"services": services}, Dumper=_Dumper))
    return ports
