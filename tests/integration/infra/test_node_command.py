"""Run `sparsewell node` as a user does, in a separate process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import gettempdir

import pytest

from infra.local_servers import LocalSettings
from infra.opensearch.node import resolve_data_directory
from infra.ports import find_free_port
from services.directories import child_account, temporary_state_directory

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def state(local_settings: LocalSettings) -> Iterator[Path]:
    with temporary_state_directory(
        child_account(local_settings.run_as), resolve_data_directory(Path(gettempdir()))
    ) as directory:
        yield directory


@pytest.fixture
def run(state: Path) -> Iterator[Run]:
    """Run `sparsewell ARGUMENTS` with a state directory of this test."""
    variables = {
        "SPARSEWELL_STATE_DIR": str(state),
        "SPARSEWELL_OPENSEARCH_PORT": str(find_free_port()),
        "SPARSEWELL_OPENSEARCH_HEAP": "512m",
    }

    def call(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env={**os.environ, **variables, **more},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    yield call
    call("node", "stop")


def test_start_status_stop(run: Run) -> None:
    assert run("node", "status").returncode == 3
    started = run("node", "start")
    assert started.returncode == 0, started.stderr
    assert "green" in started.stderr
    shown = json.loads(run("node", "status").stdout)
    assert shown["url"] == started.stdout.strip()
    assert "is stopped" in run("node", "stop").stderr
    assert run("node", "status").returncode == 3
    assert "does not run" in run("node", "stop").stderr


def test_somebodys_cluster_is_used_and_nothing_is_started(run: Run, state: Path) -> None:
    answer = run("node", "start", OPENSEARCH_URL="http://127.0.0.1:9")
    assert answer.returncode == 0
    assert "http://127.0.0.1:9" in answer.stderr
    assert not (state / "opensearch").exists()


def test_an_error_is_one_sentence_with_its_code(run: Run) -> None:
    answer = run("node", "start", SPARSEWELL_JAVA_HOME="/nowhere")
    assert answer.returncode == 1
    assert "[java_unusable]" in answer.stderr
    assert "Traceback" not in answer.stderr
