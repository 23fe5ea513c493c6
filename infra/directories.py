"""Where things are kept: a cache that may be deleted at any time, and state that may not."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from infra.accounts import Account, can_reach
from infra.settings import LocalSettings
from services.errors import ConfigurationError


def cache_dir(settings: LocalSettings, *, euid: int | None = None) -> Path:
    """The directory of unpacked distributions and Java runtimes."""
    return settings.cache_dir or _default("/var/cache", "XDG_CACHE_HOME", ".cache", euid)


def state_dir(settings: LocalSettings, *, euid: int | None = None) -> Path:
    """The directory of data, logs and process records."""
    return settings.state_dir or _default("/var/lib", "XDG_STATE_HOME", ".local/state", euid)


def _default(system: str, variable: str, below_home: str, euid: int | None) -> Path:
    # Root's home is closed to the unprivileged account that the servers run as, hence the system's places for root.
    if (os.geteuid() if euid is None else euid) == 0:
        return Path(system) / "sparsewell"
    chosen = os.environ.get(variable, "")
    return (Path(chosen) if chosen else Path.home() / below_home) / "sparsewell"


def make_directory(path: Path, owner: Account | None = None) -> Path:
    """Makes `path` and its parents, gives `path` itself to `owner`, and checks that the owner gets there."""
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
    """A directory that `owner` can reach, removed with all in it at the end. For servers that live shortly."""
    if within is not None:
        make_directory(within)
    path = Path(tempfile.mkdtemp(prefix="sparsewell-", dir=within))
    try:
        # mkdtemp makes it 0700: the children that run as another user must be able to pass through.
        path.chmod(0o755)
        yield make_directory(path) if owner is None or can_reach(path, owner) else make_directory(path, owner)
    finally:
        rmtree(path, ignore_errors=True)
