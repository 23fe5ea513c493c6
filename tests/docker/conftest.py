"""The two images, laid out once for all tests of a run that ask for them."""

from pathlib import Path

import bare_image
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = REPOSITORY / "infra" / "docker" / "Dockerfile"


@pytest.fixture(scope="session")
def api_image(tmp_path_factory: pytest.TempPathFactory) -> bare_image.BareImage:
    """What `--target api` makes."""
    return bare_image.lay_out(REPOSITORY, DOCKERFILE, "api", tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="session")
def worker_image(tmp_path_factory: pytest.TempPathFactory) -> bare_image.BareImage:
    """What `--target worker` makes."""
    return bare_image.lay_out(REPOSITORY, DOCKERFILE, "worker", tmp_path_factory.mktemp("worker"))
