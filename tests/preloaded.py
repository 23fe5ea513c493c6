"""Programs of the command line, started from a process that has imported their libraries.

A command, a worker or a sweeper takes .5 to 2 s of processor time to import its libraries, and the tests start hundreds
of them. Python's fork server imports the libraries once. Each program is then a fork of it: a process of its own, with
its own arguments, environment, working directory, output and exit status. The product's modules are not preloaded,
because prometheus_client reads the environment when it is imported.

Four things differ from an interpreter's own start: the program inherits the path of modules of the tests, functions
registered with `atexit` do not run, variables that the interpreter itself reads (PYTHONUNBUFFERED) have no effect, and
an interrupt ends it with status 1. Tests that depend on them use subprocess.
"""

import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import psutil

from infra.processes import ChildProcess, start_after_boot

ROOT: Final = Path(__file__).resolve().parents[1]
_PR_SET_PDEATHSIG: Final = 1
_SERVER_MODULE: Final = "multiprocessing.forkserver"
_LIBRARIES: Final = (
    "aiohttp", "celery.apps.worker", "celery.bin.celery", "fastapi", "httpx", "kombu.transport.redis", "numpy",
    "onnxruntime", "opensearchpy", "orjson", "psutil", "pydantic_settings", "redis.asyncio", "rich.progress",
    "rich.table", "starlette.staticfiles", "tokenizers", "typer.main", "uvicorn", "uvloop",
)  # fmt: skip
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(_LIBRARIES))


def run_program(
    *arguments: str | bytes | Path,
    environment: Mapping[str, str],
    directory: Path = ROOT,
    timeout: float = 120,
    merged: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run `python ARGUMENTS` to its end and return its status and output, as `subprocess.run` does.

    The arguments are a module (`-m`, its name) or a script, and those of the program. `merged`: standard error goes to
    `stdout` too, in the order of writing. Raises `subprocess.TimeoutExpired`.
    """
    words = [os.fsdecode(word) for word in arguments]
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder, "stdout"), Path(folder, "stdout" if merged else "stderr")
        process = _start(words, environment, directory, outputs)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout)
        stdout, stderr = (path.read_text(encoding="utf-8") for path in outputs)
        return subprocess.CompletedProcess(words, process.exitcode, stdout, "" if merged else stderr)


def run_sparsewell(
    *arguments: str | bytes | Path, environment: Mapping[str, str], timeout: float = 120, merged: bool = False
) -> "subprocess.CompletedProcess[str]":
    """Run `sparsewell ARGUMENTS` to its end; see `run_program`."""
    return run_program("-m", "cli.main", *arguments, environment=environment, timeout=timeout, merged=merged)


def start_program(
    name: str, arguments: Sequence[str], log: Path, *, environment: Mapping[str, str], directory: Path
) -> ChildProcess:
    """Start `python ARGUMENTS` in the background, as `infra.processes.start_child` does; append its output to `log`.

    The caller must stop it. If the tests' process is killed, the fork server ends and the kernel sends SIGTERM.
    """
    log.touch()
    process = _start(arguments, environment, directory, (log, log))
    assert process.pid is not None
    try:
        started = start_after_boot(psutil.Process(process.pid))
    except psutil.NoSuchProcess:
        started = time.time() - psutil.boot_time()
    return ChildProcess(name, process.pid, started, str(log))


def is_fork_server(process: psutil.Process) -> bool:
    """Return whether a process is the fork server. Its programs have its command line, but not its parent."""
    return process.ppid() == os.getpid() and _SERVER_MODULE in " ".join(process.cmdline())


def is_program(process: psutil.Process) -> bool:
    """Return whether a process is a program that the fork server started, or a child of one."""
    return process.ppid() != os.getpid() and _SERVER_MODULE in " ".join(process.cmdline())


def _start(
    arguments: Sequence[str], environment: Mapping[str, str], directory: Path, outputs: tuple[Path, Path]
) -> BaseProcess:
    process = _context.Process(
        target=_run, args=(list(arguments), dict(environment), str(directory), [str(path) for path in outputs])
    )
    process.start()
    return process


def _run(arguments: list[str], environment: dict[str, str], directory: str, outputs: list[str]) -> None:
    """Become the program. Runs in a fork of the fork server."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in zip((1, 2), outputs, strict=True):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout, sys.stderr = (
        os.fdopen(descriptor, "w", encoding="utf-8", errors=errors, buffering=1, closefd=False)
        for descriptor, errors in ((1, "strict"), (2, "backslashreplace"))
    )
    module = arguments[1] if arguments[0] == "-m" else None
    sys.argv = arguments[1:] if module else arguments
    sys.path[:0] = [directory if module else str(Path(arguments[0]).parent), *_python_path(environment)]
    try:
        if module:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None


def _python_path(environment: Mapping[str, str]) -> list[str]:
    return [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
