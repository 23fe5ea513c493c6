"""Who runs the servers. OpenSearch refuses to run as root, so root hands its children to an unprivileged account."""

import os
import pwd
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from services.errors import ConfigurationError


@dataclass(frozen=True)
class Account:
    """A user and its primary group.

    `enters_all` is the way out of a machine whose root directory itself is closed to others, as a root file system
    laid out in a directory of mktemp is: its children keep the one capability to pass through closed directories.
    """

    name: str
    uid: int
    gid: int
    enters_all: bool = False


def child_account(run_as: str, *, euid: int | None = None) -> Account | None:
    """The account that servers run as: `run_as` when we are root, None (ourselves) otherwise."""
    if (os.geteuid() if euid is None else euid) != 0:
        return None
    try:
        entry = pwd.getpwnam(run_as)
    except KeyError:
        raise ConfigurationError(
            "unknown_user",
            f"There is no user {run_as!r} to run OpenSearch and Redis as; set SPARSEWELL_RUN_AS to one that exists.",
        ) from None
    if entry.pw_uid == 0:
        raise ConfigurationError(
            "root_refused",
            "OpenSearch refuses to run as root; set SPARSEWELL_RUN_AS to an unprivileged user, for example nobody.",
        )
    account = Account(run_as, entry.pw_uid, entry.pw_gid)
    return account if can_reach(Path("/"), account) else replace(account, enters_all=True)


def can_reach(path: Path, account: Account | None) -> bool:
    """Whether the account can enter the directory `path` through all of its parents (mode bits; no ACLs)."""
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
