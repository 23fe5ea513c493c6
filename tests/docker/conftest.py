"""Build the two images once for all tests of a run, whichever process asks first."""

import os
import pickle
from pathlib import Path

import pytest
from filelock import FileLock

from tests.docker import bare_image

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = REPOSITORY / "infra" / "docker" / "Dockerfile"


def laid_out(target: str, factory: pytest.TempPathFactory) -> bare_image.BareImage:
    """Return the image of a target. The first test process builds it and the others wait."""
    # (the base directory of a pytest-xdist process lies in that of the run)
    run = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    folder = run / f"image-{target}"
    record = run / f"image-{target}.pickle"
    with FileLock(run / f"image-{target}.lock"):
        if record.exists():
            found: bare_image.BareImage = pickle.loads(record.read_bytes())  # noqa: S301 - written below
            return found
        folder.mkdir()
        image = bare_image.lay_out(REPOSITORY, DOCKERFILE, target, folder)
        record.write_bytes(pickle.dumps(image))
    return image


@pytest.fixture(scope="session")
def api_image(tmp_path_factory: pytest.TempPathFactory) -> bare_image.BareImage:
    """Return the image of `--target api`."""
    return laid_out("api", tmp_path_factory)


@pytest.fixture(scope="session")
def worker_image(tmp_path_factory: pytest.TempPathFactory) -> bare_image.BareImage:
    """Return the image of `--target worker`."""
    return laid_out("worker", tmp_path_factory)
