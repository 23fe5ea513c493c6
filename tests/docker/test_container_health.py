"""Test the health check of the containers against real processes: it reports health, and it notices each fault."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from infra import health
from infra.ports import find_free_port
from infra.stack import settings_environment
from services.settings import Settings

Started = tuple[Settings, subprocess.Popen[bytes]]

# The script has the name of the installed command, so that /proc shows the same as in the container.
SWEEPER = "import time\nwhile True: time.sleep(0.05)\n"


@pytest.fixture
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that looks like the sweeper and wakes up twenty times a second."""
    program = tmp_path / "sparsewell"
    program.write_text(SWEEPER)
    with subprocess.Popen([sys.executable, program, "sweeper"]) as process:
        see_only(process, tmp_path, monkeypatch)
        yield process
        process.kill()


def see_only(process: subprocess.Popen[bytes], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Show the check only one process, as in a container. Other sweepers of this machine are hidden."""
    while b"sparsewell" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():  # empty just after exec
        assert process.poll() is None
    (folder / "proc").mkdir()
    (folder / "proc" / str(process.pid)).symlink_to(f"/proc/{process.pid}")
    monkeypatch.setattr(health, "PROC_DIRECTORY", folder / "proc")


class _Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


@pytest.mark.parametrize(("status", "complaint"), [(200, None), (503, "/readyz answered 503")])
def test_the_apis_check_asks_whether_it_is_ready(
    status: int, complaint: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The check must ignore a proxy in the environment.
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{find_free_port()}")
    monkeypatch.setattr(_Answer, "status", status)
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert health.check_api(Settings(api_port=server.server_port)) == complaint
        finally:
            server.shutdown()
            thread.join()


def test_the_model_processs_check_asks_whether_it_is_alive() -> None:
    assert "no answer" in str(health.check_models(Settings(model_port=find_free_port())))
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:  # this server only has /readyz
            assert health.check_models(Settings(model_port=server.server_port)) == "/healthz answered 404"
        finally:
            server.shutdown()
            thread.join()


def test_the_apis_check_notices_that_nobody_listens() -> None:
    assert "no answer" in str(health.check_api(Settings(api_port=find_free_port())))


@contextmanager
def started(command: str, settings: Settings) -> Iterator[Started]:
    """Start `sparsewell COMMAND` as a container would. Yield the settings of the process and the process."""
    program = Path(sys.executable).parent / "sparsewell"
    with subprocess.Popen([program, command], env=os.environ | settings_environment(settings)) as process:
        yield settings, process
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def worker_process(new_settings: Callable[..., Settings]) -> Iterator[Started]:
    """Start a worker that the tests leave as it is, and wait until its check hears it."""
    with started("worker", new_settings()) as (settings, process):
        while health.check_worker(settings):
            assert process.poll() is None
        yield settings, process


def test_the_workers_check_hears_the_worker_of_this_host(worker_process: Started) -> None:
    settings, _ = worker_process
    assert health.check_worker(settings) is None


def test_the_workers_check_notices_that_there_is_none(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PING_SECONDS", 0.2)
    assert "did not answer" in str(health.check_worker(Settings(redis_url=redis_url)))


def test_the_sweepers_check_sees_the_real_one(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started("sweeper", settings) as (_, process):
        see_only(process, tmp_path, monkeypatch)
        assert health.check_sweeper(settings) is None


def test_the_workers_check_notices_that_redis_is_away() -> None:
    assert "Redis cannot be asked" in str(
        health.check_worker(Settings(redis_url=f"redis://127.0.0.1:{find_free_port()}/0"))
    )


def test_a_worker_whose_redis_is_away_is_alive(
    worker_process: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the engine would restart the worker while Redis is away, and no worker would run when Redis returns."""
    settings, process = worker_process
    see_only(process, tmp_path, monkeypatch)
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{find_free_port()}/0"})
    assert health.check_worker_alive(away) is None  # the test before shows that the other check complains


def test_a_worker_that_hangs_is_not_alive(
    worker_process: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, process = worker_process
    see_only(process, tmp_path, monkeypatch)
    monkeypatch.setattr(health, "WORKER_SECONDS", 0.5)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    try:
        assert "did not run" in str(health.check_worker_alive(settings))
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.mark.usefixtures("sleeper")
def test_the_sweepers_check_sees_it_wake_up() -> None:
    assert health.check_sweeper(Settings(sweep_interval=0.5, opensearch_timeout=0.5)) is None


def test_the_sweepers_check_notices_that_it_hangs(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "SWEEPER_MARGIN_SECONDS", 0.5)
    sleeper.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED)
    try:
        assert "did not run" in str(health.check_sweeper(Settings(sweep_interval=0.5, opensearch_timeout=0.5)))
    finally:
        sleeper.send_signal(signal.SIGCONT)


def test_a_sweeper_that_waits_for_an_opensearch_that_hangs_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweeper sleeps for as long as one request may take. A restart would not make OpenSearch answer."""
    waited: dict[str, float] = {}
    monkeypatch.setattr(health, "check_process_runs", waited.__setitem__)
    for seconds, settings in (
        (35, Settings(sweep_interval=1)),
        (65, Settings(sweep_interval=1, opensearch_timeout=60)),
    ):
        assert health.check_sweeper(settings) is None
        assert waited["sweeper"] == seconds


def test_a_thread_beside_it_does_not_hide_that_it_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other thread stands for the thread that serves metrics."""
    monkeypatch.setattr(health, "SWEEPER_MARGIN_SECONDS", 0.5)
    program = tmp_path / "sparsewell"
    busy = "threading.Thread(target=lambda: [time.sleep(0.05) for _ in range(10_000)], daemon=True).start()"
    program.write_text(f"import threading, time\n{busy}\nthreading.Event().wait()\n")
    with subprocess.Popen([sys.executable, program, "sweeper"]) as process:
        see_only(process, tmp_path, monkeypatch)
        while len(list(Path(f"/proc/{process.pid}/task").iterdir())) < 2:
            assert process.poll() is None
        time.sleep(0.5)
        try:
            assert "did not run" in str(health.check_sweeper(Settings(sweep_interval=0.5, opensearch_timeout=0.5)))
        finally:
            process.kill()


def test_an_unknown_process_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(["scheduler"]) == 2
    assert "api, models, worker, worker-alive, sweeper" in capsys.readouterr().err
