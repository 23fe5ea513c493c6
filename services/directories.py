"""Directories of this machine, cache and state, as several processes and accounts share them.

The cache may be deleted at any time, the state must not. OpenSearch refuses to run as root, so root runs its child
processes as an unprivileged account, which must be able to reach these directories. A lock file keeps two processes
from writing one directory at the same time. `replace_directory` writes a directory that is complete or absent.
"""

import os
import pwd
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree

from filelock import FileLock, Timeout
from platformdirs.unix import Unix
from pydantic import Field

from services.errors import ConfigurationError
from services.settings import EnvironmentSettings

# The XDG layout on every system, macOS included.
_PLATFORM = Unix("sparsewell")


class DirectorySettings(EnvironmentSettings):
    """The configured directories, read from the environment (prefix `SPARSEWELL_`)."""

    cache_dir: Path | None = Field(None, description="unpacked distributions and Java runtimes; may be deleted")
    state_dir: Path | None = Field(None, description="data, logs and records of running processes")


def resolve_cache_directory(settings: DirectorySettings, *, euid: int | None = None) -> Path:
    """Return the directory of unpacked distributions, Java runtimes and models."""
    return settings.cache_dir or (_PLATFORM.site_cache_path if _is_root(euid) else _PLATFORM.user_cache_path)


def resolve_state_directory(settings: DirectorySettings, *, euid: int | None = None) -> Path:
    """Return the directory of data, logs and process records."""
    return settings.state_dir or (_PLATFORM.site_state_path if _is_root(euid) else _PLATFORM.user_state_path)


def _is_root(euid: int | None) -> bool:
    # The unprivileged account of the servers cannot enter root's home, so root uses the system's directories.
    return (os.geteuid() if euid is None else euid) == 0


@dataclass(frozen=True)
class Account:
    """A user and its primary group.

    `enters_all` is for a machine whose root directory is closed to other users, such as a root file system in a
    directory of mktemp: its child processes keep the one capability that lets them pass through closed directories.
    """

    name: str
    uid: int
    gid: int
    enters_all: bool = False


def child_account(run_as: str, *, euid: int | None = None) -> Account | None:
    """Return the account that servers run as: `run_as` if we are root, None (ourselves) otherwise.

    Raises ConfigurationError: `unknown_user`, `root_refused`.
    """
    if (os.geteuid() if euid is None else euid) != 0:
        return None
    try:
        entry = pwd.getpwnam(run_as)
    except KeyError:
        raise ConfigurationError(
            "unknown_user",
            f"There is no user {run_as!r} to run OpenSearch and Redis as; set SPARSEWELL_RUN_AS to an existing user.",
        ) from None
    if entry.pw_uid == 0:
        raise ConfigurationError(
            "root_refused",
            "OpenSearch refuses to run as root; set SPARSEWELL_RUN_AS to an unprivileged user, for example nobody.",
        )
    account = Account(run_as, entry.pw_uid, entry.pw_gid)
    return account if can_reach(Path("/"), account) else replace(account, enters_all=True)


def can_reach(path: Path, account: Account | None) -> bool:
    """Return whether the account can enter the directory `path` and all of its parents (mode bits; no ACLs)."""
    if account is None or account.enters_all:
        return os.access(path, os.R_OK | os.X_OK)
    resolved = path.resolve()
    return all(_may_enter(parent.stat(), account) for parent in (resolved, *resolved.parents))


def _may_enter(status: os.stat_result, account: Account) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def make_directory(path: Path, owner: Account | None = None) -> Path:
    """Create `path` and its parents, give `path` to `owner`, and check that the owner can enter it.

    Raises ConfigurationError: `directory_unusable`, `directory_unreachable`.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if owner is not None:
            os.chown(path, owner.uid, owner.gid)
    except OSError as error:
        raise ConfigurationError(
            "directory_unusable",
            f"Cannot create the directory {path} ({error.strerror}). Make it writable, or choose another with "
            "SPARSEWELL_CACHE_DIR and SPARSEWELL_STATE_DIR.",
        ) from error
    if not can_reach(path, owner):
        raise ConfigurationError(
            "directory_unreachable",
            f"The user {owner.name if owner else 'running this'} cannot enter {path}: one of the directories above it "
            "is closed to other users. Choose a directory that all users can enter.",
        )
    return path


@contextmanager
def temporary_state_directory(owner: Account | None, within: Path | None = None) -> Iterator[Path]:
    """Create a directory for a short-lived server that `owner` can reach, and remove it with its content at the end."""
    if within is not None:
        make_directory(within)
    path = Path(tempfile.mkdtemp(prefix="sparsewell-", dir=within))
    try:
        # mkdtemp creates it with mode 0700, but child processes of another user must be able to enter it.
        path.chmod(0o755)
        yield make_directory(path) if owner is None or can_reach(path, owner) else make_directory(path, owner)
    finally:
        rmtree(path, ignore_errors=True)


@contextmanager
def replace_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory beside `path`; it replaces `path` when the block succeeds, and is removed if it fails.

    The old directory stays until the new one is complete. Raises ConfigurationError (`unwritable_file`).
    """
    place = path.resolve()
    fresh, old = place.with_name(f".{place.name}.part"), _replaced_directory(place)
    rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
    except OSError as error:
        raise ConfigurationError("unwritable_file", f"{fresh} cannot be created: {error.strerror}.") from None
    try:
        yield fresh
        rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        fresh.rename(place)
        rmtree(old, ignore_errors=True)
    finally:
        rmtree(fresh, ignore_errors=True)


def restore_directory(path: Path) -> None:
    """Rename the old directory back after a kill between the two renames of `replace_directory`."""
    place = path.resolve()
    if not place.is_dir():
        # Another process may restore it first.
        with suppress(OSError):
            _replaced_directory(place).rename(place)


def _replaced_directory(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


@contextmanager
def hold_lock(path: Path, report_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`; if another process holds it, call `report_wait` once and wait.

    Use FileLock itself where the wait need not be reported. The kernel releases the lock when its holder dies, so a
    leftover file does no harm.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        report_wait()
        held = lock.acquire()
    with held:
        yield
