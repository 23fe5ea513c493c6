"""Container engine of the tests: Debian's podman with a configuration, images and networks of its own.

The images stay in the cache directory, so the next run builds only what changed. A second run at the same time uses
another directory.
"""

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

# netavark starts iptables; Debian installs it only as a recommendation of podman.
PROGRAMS = ("podman", "runc", "catatonit", "mmdebstrap", "iptables")
NETWORK_PROGRAMS = ("netavark", "aardvark-dns")
NETWORK_DIRECTORIES = (Path("/usr/lib/podman"), Path("/usr/libexec/podman"))
# Passes that remove the containers.
REMOVALS = 5
# One version of the images takes 1.5 GB with OpenSearch, Redis and the layers of the build. A change of the code adds
# layers of 35 to 145 MB. Without a bound, a day of changes took 5.4 GB.
MOST_BYTES = 3_000_000_000
# Prunes, until the storage is below the bound: layers of former builds by age, then all of them, then the images too.
PRUNES = (
    ("--filter", "until=24h"), ("--filter", "until=4h"), ("--filter", "until=1h"), (), ("--all",),
)  # fmt: skip


def reason_without_engine() -> str | None:
    """Return the reason why this machine cannot run the images, and what to install, or None."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    missing += [name for name in NETWORK_PROGRAMS if not any((path / name).exists() for path in NETWORK_DIRECTORIES)]
    if missing:
        return f"no container engine: apt-get install {' '.join(missing)} (Debian's packages have these names)"
    if not is_mount_point("/"):
        return "this process is in a chroot whose root is no mount point, and podman must remount it"
    if os.geteuid() != 0:
        return "only root can run containers with the limits of docker-compose.yml"
    return None


def is_mount_point(path: str, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Return whether a path is a mount point of this process (`os.path.ismount` is always true for the root)."""
    return any(line.split()[4] == path for line in mounts.read_text().splitlines())


@dataclass(frozen=True)
class Podman:
    """Podman with the environment that selects its own configuration."""

    environment: Mapping[str, str]

    def run(self, *words: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run `podman` with these words. An error shows the output of podman."""
        return run_checked(["podman", *words], self.environment, check=check, **more)

    def has_image(self, name: str) -> bool:
        """Tell whether the storage has an image of this name."""
        return self.run("image", "exists", name, check=False).returncode == 0


def run_checked(
    command: Sequence[str], environment: Mapping[str, str], *, check: bool = True, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command and capture its output; with `check`, a failure raises RuntimeError with the end of the output."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **more)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


@dataclass(frozen=True)
class Image:
    """A built image, and its file system mounted at `root`."""

    podman: Podman
    name: str
    root: Path

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in a container as docker-compose.yml does: read-only, with a /tmp, and without a network."""
        limits = ("--rm", "--network", "none", "--no-healthcheck", "--read-only", "--cap-drop", "ALL")
        scratch = ("--tmpfs", "/tmp:size=64m,mode=1777,noexec,nosuid,nodev")  # noqa: S108
        words = (*limits, *scratch, "--entrypoint", command[0], self.name, *command[1:])
        return self.podman.run("run", *words, check=check)

    @property
    def configuration(self) -> dict[str, Any]:
        """Return what the Dockerfile sets: User, Env, Entrypoint, Cmd, Labels, Healthcheck."""
        return json.loads(self.podman.run("image", "inspect", self.name).stdout)[0]

    @property
    def layers(self) -> list[str]:
        """Return the digests of the layers from the base upwards."""
        return list(self.configuration["RootFS"]["Layers"])


@contextmanager
def started_podman(cache: Path, scratch: Path) -> Iterator[Podman]:
    """Provide podman with images in `cache`, or in `scratch` while another run holds the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache / ".lock")
    try:
        lock.acquire(timeout=0)
        place = cache
    except Timeout:
        place = scratch
    podman = _configured(place, scratch)
    try:
        remove_containers(podman)  # those of a run that was killed
        yield podman
    finally:
        remove_containers(podman)
        if place == scratch:
            podman.run("system", "reset", "--force", check=False)
        else:
            bound_storage(podman, lambda: _measure(place / "storage"))
        lock.release()


def bound_storage(podman: Podman, size: Callable[[], int]) -> None:
    """Remove the oldest layers while the images take more than MOST_BYTES. `size` returns their bytes."""
    for words in PRUNES:
        if size() <= MOST_BYTES:
            return
        podman.run("image", "prune", "--force", *words, check=False)


def _measure(folder: Path) -> int:
    """Return the bytes on disk of a folder, without the file systems that are mounted in it."""
    done = run_checked(["du", "--summarize", "--block-size=1", "--one-file-system", str(folder)], os.environ)
    return int(done.stdout.split()[0])


def remove_containers(podman: Podman) -> None:
    """Remove every container, volume and network of the storage.

    podman removes containers side by side, and refuses one that another depends on. A pass removes at least the last
    of each chain, so a chain of the five services of docker-compose.yml takes at most five.
    """
    words = ("rm", "--all", "--force", "--time", "0", "--volumes")
    for _ in range(REMOVALS - 1):
        if podman.run(*words, check=False).returncode == 0:
            break
    else:
        podman.run(*words)
    for kind in ("volume", "network"):
        podman.run(kind, "prune", "--force")


def _configured(place: Path, scratch: Path) -> Podman:
    """Write the two configuration files into `scratch`.

    podman keeps the paths of its directories with the images, so those of a run are the same each time.

    podman asks for more open files and processes than a machine may allow; then no container starts. So the limits of
    this process hold, and podman itself allows no more processes than the machine has numbers for.
    """
    limits = ", ".join(f'"{name}={each["hard"]}:{each["hard"]}"' for name, each in allowed_limits({}).items())
    containers = scratch / "containers.conf"
    containers.write_text(
        f"[containers]\ndefault_ulimits = [{limits}]\n"
        f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{place}/run/networks"\n'
        f'[engine]\ntmp_dir = "{place}/run/libpod"\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n'
        'events_logger = "file"\n'
        f'init_path = "{shutil.which("catatonit")}"\n'
    )
    storage = scratch / "storage.conf"
    storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/storage"\nrunroot = "{place}/run"\n')
    own = {
        "CONTAINERS_CONF": str(containers),
        "CONTAINERS_STORAGE_CONF": str(storage),
        # A build runs its commands in a chroot; containers of a build need rights that a machine may lack.
        "BUILDAH_ISOLATION": "chroot",
    }
    return Podman({**os.environ, **own})


def allowed_limits(told: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Return `ulimits` of a service, lowered to what this process may set, with open files and processes added."""
    numbers = int(Path("/proc/sys/kernel/pid_max").read_text())
    most = {
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        # podman lowers its own limit to the process numbers of the machine
        "nproc": _least(resource.getrlimit(resource.RLIMIT_NPROC)[1], numbers),
        "memlock": resource.getrlimit(resource.RLIMIT_MEMLOCK)[1],
    }
    wanted = {name: {"soft": most[name], "hard": most[name]} for name in ("nofile", "nproc")} | dict(told)
    return {name: {key: _least(value, most[name]) for key, value in each.items()} for name, each in wanted.items()}


def _least(one: int, other: int) -> int:
    """Return the lower of two limits; RLIM_INFINITY (-1) is the highest."""
    return max(one, other) if resource.RLIM_INFINITY in (one, other) else min(one, other)
