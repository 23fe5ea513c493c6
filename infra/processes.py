"""Background children: started with a log, recorded by pid and start time, stopped only while really ours.

Ports on loopback: a free one, and who has a taken one.

SIGTERM and SIGHUP as exceptions, for what must tidy up after itself.
"""

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import psutil

from services.directories import Account
from services.errors import ConfigurationError

LOOPBACK = "127.0.0.1"


def find_free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_port_taken(port: int) -> bool:
    """Whether a server could not listen on the loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def require_free_port(port: int, purpose: str, variable: str) -> None:
    """Raises `port_in_use`, naming the port and, where we may see it, the process that listens."""
    if is_port_taken(port):
        raise ConfigurationError(
            "port_in_use",
            f"Port {port}, wanted for {purpose}, is taken by {describe_port_holder(port)}. Stop that, or choose another port with "
            f"{variable}.",
            port=port,
        )


def describe_port_holder(port: int) -> str:
    """Words for the process that listens on the port."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return "a process that this user may not see"


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as an exception, so that what follows it runs. One that is ignored stays so."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    heard = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is not signal.SIG_IGN]  # nohup
    previous = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


# A record's start time and psutil's reading of it can differ by the clock's own correction since.
CLOCK_SLACK_SECONDS = 2.0


@dataclass(frozen=True)
class ChildProcess:
    """A started process: its pid, when it was started (epoch seconds, from the kernel) and where its output goes."""

    name: str
    pid: int
    started: float
    log: str

    def process(self) -> psutil.Process | None:
        """The living process, or None when it is gone, a zombie, or when another one has its pid now."""
        try:
            process = psutil.Process(self.pid)
            ours = abs(process.create_time() - self.started) <= CLOCK_SLACK_SECONDS
            return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process() is not None


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
    """Starts `command` in the background with exactly `environment`, as `account`, output to the end of `log`.

    The child leads its own session, so that Ctrl-C reaches only us and we stop it in order. A `tied` child gets
    SIGTERM from the kernel when we die without having stopped it (Linux with setpriv; elsewhere it would stay).
    """
    arguments = [*_prefix(account, tied), *command]
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
        started = psutil.Process(popen.pid).create_time()
    except psutil.Error:
        started = time.time()
    # We follow the process by its record, as a later command does; Popen would only warn when it is collected.
    popen.returncode = 0
    return ChildProcess(name, popen.pid, started, str(log))


def _prefix(account: Account | None, tied: bool) -> list[str]:
    """What is put before the command to become the account (where Popen alone cannot) and to die with us."""
    setpriv = shutil.which("setpriv")
    prefix: list[str] = []
    if account is not None and account.enters_all:
        if setpriv is None:
            raise ConfigurationError(
                "root_directory_closed",
                f"The directory / is closed to the user {account.name}, so it can run nothing. Open it (chmod 755 /) "
                "or install setpriv (Debian: util-linux).",
            )
        prefix += [setpriv, f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
        # access(2), which Java asks, looks away from the capabilities of other users unless no_setuid_fixup is set.
        prefix += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--securebits=+no_setuid_fixup"]
        prefix += ["--"]
    if tied and setpriv is not None:
        # A call of its own and the last one: the kernel forgets the wish when the user changes.
        prefix += [setpriv, "--pdeathsig", "TERM", "--"]
    return prefix


def stop_child(child: ChildProcess, timeout: float) -> bool:
    """Ends the child and what it started: SIGTERM, and SIGKILL after `timeout` seconds. False when it was not running.

    A process that merely has the recorded pid is left alone.
    """
    process = child.process()
    if process is None:
        _reap_child(child.pid)
        return False
    family = [process, *_descendants(process)]
    _send_signal([process], signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while child.alive() and time.monotonic() < deadline:
        _reap_child(child.pid)
        time.sleep(0.05)
    # Children of the child that outlived it, and the child itself if it did not listen.
    _send_signal([member for member in family if member.is_running()], signal.SIGKILL)
    psutil.wait_procs(family, timeout=5)
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
    """Collects the exit status when the process was our own child, so that no zombie stays."""
    try:
        psutil.Process(pid).wait(timeout=0)
    except psutil.Error:
        return


def save_child(child: ChildProcess, path: Path, **facts: object) -> None:
    """Writes the record of a running child, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps({**asdict(child), "facts": facts}, indent=1) + "\n")
    scratch.replace(path)


def load_child(path: Path) -> tuple[ChildProcess, dict[str, object]] | None:
    """The recorded child and the facts beside it; None when there is no readable record."""
    try:
        record = json.loads(path.read_text())
        facts = record.pop("facts")
        return ChildProcess(**record), facts
    except (OSError, ValueError, KeyError, TypeError):
        return None


def rotate_log(log: Path) -> None:
    """Keeps the log of the previous run as `NAME.previous`, so that a new one starts empty."""
    if log.exists():
        log.replace(log.with_name(log.name + ".previous"))


def read_last_lines(log: Path, count: int = 20) -> str:
    """The end of a log, for an error message; empty when there is none."""
    try:
        with log.open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - 64 * 1024))
            return "\n".join(handle.read().decode(errors="replace").splitlines()[-count:])
    except OSError:
        return ""
