"""The metrics port, and values shared with child processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from indexer.worker import share_metrics
from services.errors import ConfigurationError
from services.settings import Settings
from services.telemetry.metrics import SEARCH_INCOMPLETE, expose_metrics


def test_without_a_setting_there_is_no_port() -> None:
    with expose_metrics(Settings(), "api") as port:
        assert port is None


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the library's server leaks its socket
def test_a_taken_port_is_a_configuration_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = Settings(metrics_port=other.getsockname()[1])
        with pytest.raises(ConfigurationError) as caught, expose_metrics(settings, "api"):
            pass
    assert caught.value.code == "metrics_port_in_use"


def test_metrics_are_served_until_the_end_of_the_block() -> None:
    SEARCH_INCOMPLETE.inc()
    with expose_metrics(Settings(metrics_port=0, commit="abc123"), "api") as port:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert "sparsewell_search_incomplete_total " in text
    assert 'commit="abc123",process="api"' in text
    assert "process_resident_memory_bytes" in text
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)


def test_sharing_must_precede_the_import_of_the_library() -> None:
    with pytest.raises(RuntimeError), share_metrics():  # this process has the library
        pass
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ


def test_children_share_their_counts(tmp_path: Path) -> None:
    program = """
import os
from indexer.worker import share_metrics
with share_metrics():
    from services.telemetry.metrics import TASKS, make_registry
    for _ in range(3):
        if (child := os.fork()) == 0:
            TASKS.labels("encode", "done").inc()
            os.kill(os.getpid(), 9)
        os.waitpid(child, 0)
    print(make_registry().get_sample_value("sparsewell_tasks_total", {"task": "encode", "outcome": "done"}))
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "3.0"
    assert not list(tmp_path.iterdir())
