"""Build the images for the tests of them, or skip these tests where no engine can."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.images import build_command, image_name
from infra.local_servers import LocalSettings
from services.directories import resolve_cache_directory
from tests.docker.engine import Image, Podman, reason_without_engine, run_checked, started_podman
from tests.docker.stand_ins import make_base

REPOSITORY = Path(__file__).resolve().parents[2]
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the engine's files for a module."""
    return tmp_path_factory.mktemp("podman")


@pytest.fixture(scope="module")
def podman(scratch: Path) -> Iterator[Podman]:
    """Provide a container engine; skip where none works."""
    if reason := reason_without_engine():
        pytest.skip(reason)
    with started_podman(resolve_cache_directory(LocalSettings.read()) / "images", scratch) as found:
        yield found


@pytest.fixture(scope="module")
def base_image(podman: Podman, scratch: Path) -> str:
    """Return the name of the image that takes the place of the official one of Python."""
    return make_base(podman, scratch)


@pytest.fixture(scope="module")
def images(podman: Podman, base_image: str) -> Iterator[dict[str, Image]]:
    """Build both images as `make images` does, and mount their file systems. The keys are the targets."""
    environment = {**os.environ, "PYTHON_IMAGE": os.environ.get("PYTHON_IMAGE", base_image)}
    built: dict[str, Image] = {}
    for target in ("api", "worker"):
        run_checked(
            build_command("podman", target, environment=environment, revision=REVISION),
            podman.environment,
            cwd=REPOSITORY,
        )
        name = image_name(target)
        built[target] = Image(podman, name, Path(podman.run("image", "mount", name).stdout.strip()))
    yield built
    for image in built.values():
        podman.run("image", "unmount", "--force", image.name)


@pytest.fixture(scope="module")
def api_image(images: dict[str, Image]) -> Image:
    """Return the image of `--target api`."""
    return images["api"]


@pytest.fixture(scope="module")
def worker_image(images: dict[str, Image]) -> Image:
    """Return the image of `--target worker`."""
    return images["worker"]
