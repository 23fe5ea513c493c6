"""Run the containers of a rendered release as processes of this machine, as a kubelet would.

The processes have the real command, arguments, environment (ConfigMaps, Secrets, files of projected volumes, an
annotation as a file), probes with their limits, preStop, SIGTERM and grace period. Addresses and ports are rewritten,
because all pods share one network here. Paths are rewritten, because all pods share one root. There are no images,
users, policies and limits.
"""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from infra.helm.rendering import KubernetesObject
from infra.ports import find_free_port
from tests.helm import policies

BIN = Path(sys.executable).parent
SERVED = {"api": 8010, "models": 8020}


@dataclass
class Cluster:
    """The objects of a release, the Secrets that its user made, and the folder of its pods' folders."""

    objects: list[KubernetesObject]
    secrets: dict[str, dict[str, str]]
    folder: Path
    ports: dict[int, int] = field(default_factory=lambda: {port: find_free_port() for port in SERVED.values()})

    def address(self, component: str) -> str:
        """Return the address of a component, in place of its Service."""
        return f"http://127.0.0.1:{self.ports[SERVED[component]]}"

    def pods(self, *kinds: str) -> "list[Pod]":
        """Return a pod of each workload of these kinds."""
        return [Pod(self, one) for one in policies.of_kind(self.objects, *kinds)]

    def find(self, kind: str, name: str) -> KubernetesObject:
        return next(one for one in self.objects if (one["kind"], one["metadata"]["name"]) == (kind, name))

    def here(self, text: str) -> str:
        """Replace Service names, ports and the listening address by those of this machine."""
        for component, port in SERVED.items():
            text = re.sub(rf"http://[\w-]+-{component}\.[\w-]+\.svc:{port}", self.address(component), text)
            text = re.sub(rf"^[\w-]+-{component}\.[\w-]+\.svc$", "127.0.0.1", text)
        return {str(port): str(own) for port, own in self.ports.items()}.get(text, text.replace("0.0.0.0", "127.0.0.1"))  # noqa: S104


class Pod:
    """A pod of one container."""

    def __init__(self, cluster: Cluster, workload: KubernetesObject) -> None:
        self.cluster, self.workload = cluster, workload
        self.spec = policies.pod(workload)
        (self.container,) = self.spec["containers"]
        self.root = cluster.folder / workload["metadata"]["name"]
        self.log = self.root / "log"
        self._lay_out()
        self.environment = self._environment()
        # Pods that share a network need different ports.
        if "SPARSEWELL_METRICS_PORT" in self.environment:
            self.environment["SPARSEWELL_METRICS_PORT"] = str(find_free_port())
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        name: str = self.container["name"]
        return name

    def start(self) -> "Pod":
        """Start the container's command."""
        words = [*self.container["command"], *self.container["args"]]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command(words), env=self.environment, cwd=self.root / "tmp", stdout=log, stderr=subprocess.STDOUT
            )
        return self

    def succeeds(self, probe: str) -> bool:
        """Tell whether a probe succeeds within `failureThreshold` attempts."""
        told = self.container[probe]
        for _ in range(told["failureThreshold"]):
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} ended: {self.said()}"
            began = time.monotonic()
            if self._asked(told):
                return True
            # Wait 2 s at most, because a probe's period of a minute would make the test slow.
            time.sleep(max(0, min(told["periodSeconds"], 2) - (time.monotonic() - began)))
        return False

    def stop(self) -> int:
        """Run preStop, send SIGTERM and return the exit status. Raise AssertionError after the grace period."""
        assert self.process is not None
        began = time.monotonic()
        if "lifecycle" in self.container:
            self.run(self.container["lifecycle"]["preStop"]["exec"]["command"]).check_returncode()
        self.process.send_signal(signal.SIGTERM)
        left = self.spec["terminationGracePeriodSeconds"] - (time.monotonic() - began)
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(left)
        raise AssertionError(f"{self.name} would be killed: {self.said()}")

    def finish(self, seconds: float) -> int:
        """Return the exit status of a Job's container."""
        assert self.process is not None
        return self.process.wait(seconds)

    def metrics(self) -> str:
        """Return the metrics that Prometheus would read."""
        address = f"http://127.0.0.1:{self.environment['SPARSEWELL_METRICS_PORT']}/metrics"
        return httpx.get(address, timeout=30, trust_env=False).raise_for_status().text

    def run(self, words: list[str]) -> subprocess.CompletedProcess[bytes]:
        """Run a command in the container."""
        return subprocess.run(
            self._command(words), env=self.environment, cwd=self.root / "tmp", capture_output=True, check=False
        )

    def said(self) -> str:
        """Return the log of the container."""
        return self.log.read_text()

    def kill(self) -> None:
        """Kill the process if a test failed before `stop`."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def written_files(self) -> list[str]:
        """Return files of the root file system that the process has open for writing, except its log."""
        assert self.process is not None
        found = []
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                target = str(descriptor.readlink())
                info = Path(f"/proc/{self.process.pid}/fdinfo/{descriptor.name}").read_text()
                flags = int(re.search(r"flags:\s*(\d+)", info)[1], 8)  # type: ignore[index]
                free = target.startswith((str(self.root), "/dev/", "/tmp/")) or not target.startswith("/")  # noqa: S108
                if flags & (os.O_WRONLY | os.O_RDWR) and not free:
                    found.append(target)
        return found

    def _asked(self, probe: dict[str, Any]) -> bool:
        if "exec" in probe:
            return self.run(probe["exec"]["command"]).returncode == 0
        http_get = probe["httpGet"]
        (port,) = (each["containerPort"] for each in self.container["ports"] if each["name"] == http_get["port"])
        with suppress(httpx.HTTPError):
            address = f"http://127.0.0.1:{self.cluster.ports[port]}{http_get['path']}"
            return httpx.get(address, timeout=probe["timeoutSeconds"], trust_env=False).is_success
        return False

    def _command(self, words: list[str]) -> list[str | Path]:
        program = BIN / words[0] if (BIN / words[0]).exists() else words[0]
        return [program, *(self._path(self.cluster.here(word)) for word in words[1:])]

    def _path(self, text: str) -> str:
        """Return the path on this machine of a path in the container. Longer mounts have precedence."""
        for mount in sorted((one["mountPath"] for one in self.container["volumeMounts"]), key=len, reverse=True):
            if text == mount or text.startswith(f"{mount}/"):
                return f"{self.root}{text}"
        return text

    def _environment(self) -> dict[str, str]:
        found: dict[str, str] = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(self.root / "tmp")}
        for each in self.container["envFrom"]:
            found |= self.cluster.find("ConfigMap", each["configMapRef"]["name"])["data"]
        for each in self.container["env"]:
            reference = each.get("valueFrom", {}).get("secretKeyRef")
            found[each["name"]] = (
                self.cluster.secrets[reference["name"]][reference["key"]] if reference else each["value"]
            )
        return {name: self._path(self.cluster.here(value)) for name, value in found.items()}

    def _lay_out(self) -> None:
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        for mount in self.container["volumeMounts"]:
            folder = Path(f"{self.root}{mount['mountPath']}")
            folder.mkdir(parents=True, exist_ok=True)
            volume = volumes[mount["name"]]
            for source in volume.get("projected", {}).get("sources", []):
                for item in source["secret"]["items"]:
                    (folder / item["path"]).write_text(self.cluster.secrets[source["secret"]["name"]][item["key"]])
            for item in volume.get("downwardAPI", {}).get("items", []):
                key = re.fullmatch(r"metadata\.annotations\['(.+)'\]", item["fieldRef"]["fieldPath"])
                assert key
                annotations = self.workload["spec"]["template"]["metadata"]["annotations"]
                (folder / item["path"]).write_text(annotations[key[1]])
