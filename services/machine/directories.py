"""The directories of this machine: a cache that may be deleted at any time, and state that may not."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from platformdirs.unix import Unix
from pydantic import Field

from services.environment import EnvironmentSettings
from services.errors import ConfigurationError
from services.machine.accounts import Account, can_reach

# The XDG layout on every system, macOS included.
_PLATFORM = Unix("sparsewell")


class DirectorySettings(EnvironmentSettings):
    """The directories that were chosen, read from the environment (prefix `SPARSEWELL_`)."""

    cache_dir: Path | None = Field(None, description="unpacked distributions and Java runtimes; may be deleted")
    state_dir: Path | None = Field(None, description="data, logs and records of running processes")


def cache_dir(settings: DirectorySettings, *, euid: int | None = None) -> Path:
    """Return the directory of unpacked distributions, Java runtimes and models."""
    return settings.cache_dir or (_PLATFORM.site_cache_path if _is_root(euid) else _PLATFORM.user_cache_path)


def state_dir(settings: DirectorySettings, *, euid: int | None = None) -> Path:
    """Return the directory of data, logs and process records."""
    return settings.state_dir or (_PLATFORM.site_state_path if _is_root(euid) else _PLATFORM.user_state_path)


def _is_root(euid: int | None) -> bool:
    # Root's home is closed to the unprivileged account that the servers run as, hence the system's directories.
    return (os.geteuid() if euid is None else euid) == 0


def make_directory(path: Path, owner: Account | None = None) -> Path:
    """Make `path` and its parents, give `path` itself to `owner`, and check that the owner can enter it.

    Raises ConfigurationError: `directory_unusable`, `directory_unreachable`.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if owner is not None:
            os.chown(path, owner.uid, owner.gid)
    except OSError as error:
        raise ConfigurationError(
            "directory_unusable",
            f"Cannot make the directory {path} ({error.strerror}). Make it writable, or choose another with "
            "SPARSEWELL_CACHE_DIR and SPARSEWELL_STATE_DIR.",
        ) from error
    if not can_reach(path, owner):
        raise ConfigurationError(
            "directory_unreachable",
            f"The user {owner.name if owner else 'running this'} cannot enter {path}: one of the directories above it "
            "is closed to other users. Choose a place that everybody may enter.",
        )
    return path


@contextmanager
def temporary_state(owner: Account | None, within: Path | None = None) -> Iterator[Path]:
    """Make a directory that `owner` can reach, for a short-lived server; remove it with its content at the end."""
    if within is not None:
        make_directory(within)
    path = Path(tempfile.mkdtemp(prefix="sparsewell-", dir=within))
    try:
        # mkdtemp makes it 0700: the children that run as another user must be able to pass through.
        path.chmod(0o755)
        yield make_directory(path) if owner is None or can_reach(path, owner) else make_directory(path, owner)
    finally:
        rmtree(path, ignore_errors=True)
