"""Tests of child processes in the background."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra import processes
from infra.processes import ChildProcess
from services.directories import Account, child_account
from services.errors import ConfigurationError

PATH = {"PATH": os.environ["PATH"]}
Eventually = Callable[[Callable[[], object], float, str], None]


def sleeper(tmp_path: Path, code: str = "import time; time.sleep(60)", *, tied: bool = False) -> ChildProcess:
    return processes.start_child(
        "sleeper",
        [sys.executable, "-c", code],
        tmp_path / "logs" / "sleeper.log",
        environment=PATH,
        directory=tmp_path,
        tied=tied,
    )


def test_a_child_is_stopped_once_and_reaped(tmp_path: Path) -> None:
    child = sleeper(tmp_path)
    assert child.alive()
    assert processes.stop_child(child, 5)
    assert not child.alive()
    assert not psutil.pid_exists(child.pid)
    assert not processes.stop_child(child, 5)


def test_another_process_with_the_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    child = sleeper(tmp_path)
    try:
        stranger = replace(child, started=child.started - 3600)
        assert not stranger.alive()
        assert not processes.stop_child(stranger, 5)
        assert child.alive()
    finally:
        processes.stop_child(child, 5)


@pytest.mark.skipif(sys.platform != "linux", reason="the boot time is read from /proc")
@pytest.mark.parametrize("correction", [-7200, 7200])
def test_a_child_is_stopped_after_a_correction_of_the_clock(
    correction: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = sleeper(tmp_path)
    told = psutil.Process(child.pid).create_time()
    corrected = tmp_path / "proc"
    corrected.mkdir()
    boot = int(psutil.boot_time())
    told_by_kernel = Path("/proc/stat").read_text()
    (corrected / "stat").write_text(told_by_kernel.replace(f"btime {boot}", f"btime {boot + correction}"))
    for pid in psutil.pids():
        (corrected / str(pid)).symlink_to(f"/proc/{pid}")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(corrected))
    assert psutil.Process(child.pid).create_time() == pytest.approx(told + correction, abs=2)
    assert child.alive()
    assert processes.stop_child(child, 5)
    monkeypatch.undo()
    assert not psutil.pid_exists(child.pid)


def test_a_child_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path, eventually: Eventually) -> None:
    child = sleeper(
        tmp_path,
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True);"
        "time.sleep(60)",
    )
    log = Path(child.log)
    eventually(lambda: log.read_text().endswith("\n"), 60, "the child has a child")
    grandchild = int(log.read_text())
    began = time.monotonic()
    assert processes.stop_child(child, 0.3)
    assert time.monotonic() - began < 10
    eventually(lambda: not psutil.pid_exists(grandchild), 60, "the grandchild is gone")
    assert not child.alive()


def test_a_record_is_read_back_and_a_broken_one_is_none(tmp_path: Path) -> None:
    child = ChildProcess("x", 1, 2.0, "log")
    path = tmp_path / "deep" / "x.json"
    processes.save_child(child, path, url="http://there")
    assert processes.load_child(path) == (child, {"url": "http://there"})
    path.write_text("{")
    assert processes.load_child(path) is None
    assert processes.load_child(tmp_path / "none.json") is None


def test_the_output_of_both_streams_is_logged_and_the_last_run_is_kept(tmp_path: Path, eventually: Eventually) -> None:
    child = sleeper(tmp_path, "import sys; print('out'); print('err', file=sys.stderr)")
    eventually(lambda: not child.alive(), 60, "the child ends")
    log = Path(child.log)
    assert sorted(processes.read_last_lines(log).split()) == ["err", "out"]
    assert len(processes.read_last_lines(log, 1).splitlines()) == 1
    processes.rotate_log(log)
    assert not log.exists()
    assert processes.read_last_lines(log) == ""
    assert log.with_name("sleeper.log.previous").exists()
    processes.stop_child(child, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_tied_child_dies_with_its_parent(tmp_path: Path, eventually: Eventually) -> None:
    code = (
        "import json, sys, time; from pathlib import Path; from infra import processes\n"
        "start = lambda name, tied: processes.start_child(name, ['sleep', '60'], Path(sys.argv[1]) / name,"
        " environment={'PATH': '/usr/bin:/bin'}, directory=Path('/'), tied=tied)\n"
        "for name, tied in (('tied', True), ('free', False)):\n"
        "    processes.save_child(start(name, tied), Path(sys.argv[1]) / f'{name}.json')\n"
        "print('started', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        parent.send_signal(signal.SIGKILL)
    records = [processes.load_child(tmp_path / f"{name}.json") for name in ("tied", "free")]
    assert records[0] is not None
    assert records[1] is not None
    (tied, _), (free, _) = records
    eventually(lambda: not tied.alive(), 60, "the tied child is gone")
    assert free.alive()
    processes.stop_child(free, 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts children as somebody else")
@pytest.mark.parametrize("enters_all", [False, True])
def test_a_child_of_root_runs_as_the_account(tmp_path: Path, eventually: Eventually, enters_all: bool) -> None:
    # tmp_path is closed to other accounts, like / on a machine that needs `enters_all`.
    (tmp_path / "file").write_text("read it")
    tmp_path.chmod(0o700)
    account = child_account("nobody")
    assert account is not None
    child = processes.start_child(
        "reader",
        ["sh", "-c", f"id -u; cat {tmp_path / 'file'}; touch {tmp_path / 'new'}"],
        tmp_path / "log",
        environment=PATH,
        directory=Path("/"),
        account=replace(account, enters_all=enters_all),
        tied=True,
    )
    eventually(lambda: not child.alive(), 60, "the child ends")
    processes.stop_child(child, 1)
    said = (tmp_path / "log").read_text()
    assert said.startswith(f"{account.uid}\n")
    assert ("read it" in said) is enters_all
    assert not (tmp_path / "new").exists(), "it reads, and writes nothing that is not its own"


def test_a_closed_root_directory_without_setpriv_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    locked_out = Account("nobody", 65534, 65534, enters_all=True)
    with pytest.raises(ConfigurationError, match="chmod 755 /"):
        processes.start_child("x", ["x"], tmp_path / "log", environment={}, directory=tmp_path, account=locked_out)
