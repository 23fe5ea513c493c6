"""Child processes in the background.

A child has a log and a record with its pid and start time. Later commands find it by the record, and stop it only while
the pid still belongs to it (docs/decisions/0011). `raise_on_signals` turns SIGTERM and SIGHUP into exceptions, so that
callers can clean up.
"""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import psutil

from services.directories import Account
from services.errors import ConfigurationError, SparsewellError

# The kernel states the boot time in whole seconds, so two readings of a start time differ by at most one.
START_SLACK_SECONDS = 2.0


@dataclass(frozen=True)
class ChildProcess:
    """Started process: its pid, its start time (seconds after the boot, from the kernel) and its log file.

    A time of day would not identify it: when the clock of a resumed virtual machine was corrected, no child was found
    again, and none was stopped.
    """

    name: str
    pid: int
    started: float
    log: str

    def process(self) -> psutil.Process | None:
        """Return the running process; None if it ended, is a zombie, or lost its pid to another process."""
        try:
            process = psutil.Process(self.pid)
            ours = abs(start_after_boot(process) - self.started) <= START_SLACK_SECONDS
            return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None

    def alive(self) -> bool:
        """Return whether the process still runs."""
        return self.process() is not None

    def age(self) -> float:
        """Return the seconds since the start."""
        return time.time() - psutil.boot_time() - self.started


def start_after_boot(process: psutil.Process) -> float:
    """Return when a process started, in seconds after the boot. A correction of the clock does not change it."""
    # psutil adds the boot time, which the kernel computes from the clock
    return process.create_time() - psutil.boot_time()


def start_child(
    name: str,
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str],
    directory: Path,
    account: Account | None = None,
    tied: bool = False,
) -> ChildProcess:
    """Start `command` in the background with exactly `environment`, as `account`; append its output to `log`.

    The child leads its own session, so Ctrl-C reaches only us and we stop the children in order. A `tied` child gets
    SIGTERM from the kernel when we die without stopping it (Linux with setpriv; elsewhere it would stay).
    """
    arguments = [*_command_prefix(account, tied), *command]
    changes_user = account is not None and not account.enters_all
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        popen = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=dict(environment),
            start_new_session=True,
            user=account.uid if account and changes_user else None,
            group=account.gid if account and changes_user else None,
            extra_groups=[] if changes_user else None,
        )
    try:
        started = start_after_boot(psutil.Process(popen.pid))
    except psutil.Error:
        started = time.time() - psutil.boot_time()
    # The record identifies the process from here on; a Popen without a return code warns when it is collected.
    popen.returncode = 0
    return ChildProcess(name, popen.pid, started, str(log))


def _command_prefix(account: Account | None, tied: bool) -> list[str]:
    """Return a prefix that changes the account, where Popen alone cannot, and ties the child to this process."""
    setpriv = shutil.which("setpriv")
    prefix: list[str] = []
    if account is not None and account.enters_all:
        if setpriv is None:
            raise ConfigurationError(
                "root_directory_closed",
                f"The directory / is closed to the user {account.name}, who cannot run anything. Open it (chmod 755 /) "
                "or install setpriv (Debian: util-linux).",
            )
        prefix += [setpriv, f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
        # Java calls access(2), which ignores the capabilities of other users unless no_setuid_fixup is set.
        prefix += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--securebits=+no_setuid_fixup"]
        prefix += ["--"]
    if tied and setpriv is not None:
        # A second, later setpriv: the kernel clears the setting when the user changes.
        prefix += [setpriv, "--pdeathsig", "TERM", "--"]
    return prefix


def wait_until_ready(
    child: ChildProcess,
    is_ready: Callable[[], bool],
    timeout: float,
    *,
    pause: float,
    died: Callable[[], SparsewellError],
    late: Callable[[], SparsewellError],
) -> None:
    """Return once `is_ready` is true; it is called every `pause` seconds.

    Raises the error of `died` if the child ended, and the error of `late` after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        # A server that another process started may answer in place of a child that ended.
        if not child.alive():
            raise died()
        if is_ready():
            return
        if time.monotonic() >= deadline:
            raise late()
        time.sleep(pause)


def stop_child(child: ChildProcess, timeout: float) -> bool:
    """Stop the child and its descendants with SIGTERM, and with SIGKILL after `timeout` seconds.

    Returns False if the child did not run. Another process with the recorded pid is left alone.
    """
    process = child.process()
    if process is None:
        _reap_child(child.pid)
        return False
    tree = [process, *_descendants(process)]
    _send_signal([process], signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while child.alive() and time.monotonic() < deadline:
        _reap_child(child.pid)
        time.sleep(0.05)
    # The descendants that outlived the child, and the child itself if it ignored SIGTERM.
    _send_signal([member for member in tree if member.is_running()], signal.SIGKILL)
    psutil.wait_procs(tree, timeout=5)
    _reap_child(child.pid)
    return True


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _send_signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue


def _reap_child(pid: int) -> None:
    """Collect the exit status of a child of this process, so that no zombie stays."""
    try:
        psutil.Process(pid).wait(timeout=0)
    except psutil.Error:
        return


def save_child(child: ChildProcess, path: Path, **facts: object) -> None:
    """Write the record of a running child, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps({**asdict(child), "facts": facts}, indent=1) + "\n")
    scratch.replace(path)


def load_child(path: Path) -> tuple[ChildProcess, dict[str, object]] | None:
    """Return the recorded child and the facts in its record; None without a readable record."""
    try:
        record = json.loads(path.read_text())
        facts = record.pop("facts")
        return ChildProcess(**record), facts
    except (OSError, ValueError, KeyError, TypeError):
        return None


def rotate_log(log: Path) -> None:
    """Rename the log of the previous run to `NAME.previous`, so that the new log starts empty."""
    if log.exists():
        log.replace(log.with_name(log.name + ".previous"))


def read_last_lines(log: Path, count: int = 20) -> str:
    """Return the end of a log for an error message; empty if there is none."""
    try:
        with log.open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - 64 * 1024))
            return "\n".join(handle.read().decode(errors="replace").splitlines()[-count:])
    except OSError:
        return ""


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """End the block with SystemExit at SIGTERM or SIGHUP. A signal that is ignored stays ignored."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    # nohup ignores SIGHUP.
    handled = [sig for sig in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(sig) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, end) for number in handled}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
