"""Provide the commands of a user of the test's service."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.stack import settings_environment
from services.settings import Settings
from tests.preloaded import run_sparsewell


@pytest.fixture
def environment(settings: Settings, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a command: the test's settings, and a state directory of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPARSEWELL_")}
    return {**inherited, **settings_environment(settings), "SPARSEWELL_STATE_DIR": str(tmp_path / "state")}


@pytest.fixture
def load(environment: dict[str, str]) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run `sparsewell load ARGUMENTS`."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return run_sparsewell("load", *map(str, arguments), environment=environment)

    return run
