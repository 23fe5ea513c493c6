"""Fixtures for several unit tests."""

import shutil
from pathlib import Path

import pytest

from services.encoders.manifest import WEIGHTS_ROOT
from tests.unit.services.encoders.model_directories import Copy


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """Return a function `copy(shipped, name)` that copies a shipped encoder into a directory of that name."""

    def copy_encoder(shipped: str, name: str) -> Path:
        return Path(shutil.copytree(WEIGHTS_ROOT / shipped, tmp_path / name))

    return copy_encoder
