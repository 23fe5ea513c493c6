"""The snapshot repository of backups: register it, make, list, find, verify and delete backups.

Backups are OpenSearch snapshots. The repository is registered by the operator (s3, azure, gcs, fs), or by the first
command as a directory that all nodes share (SPARSEWELL_BACKUP_LOCATION).
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from services.errors import BackendUnavailable, ConfigurationError, NotFound, SparsewellError
from services.index_spec import IndexNames
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import list_generations_call, read_active_generations
from services.opensearch.snapshots import (
    RUNNING,
    Backup,
    create_snapshot_call,
    delete_snapshot_call,
    get_repository_call,
    get_snapshots_call,
    list_snapshot_names_call,
    new_backup_name,
    read_backups,
    register_repository_call,
    snapshot_status_call,
    verify_repository_call,
)
from services.opensearch.system_indexes import read_system_indexes, system_indexes_call
from services.settings import Settings

MessageReporter = Callable[[str], None]
LATEST_BACKUP = "latest"
# Names of backups. OpenSearch reads `*`, `_all` and commas as several snapshots.
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,254}")
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class BackupRepository:
    """The backups of an installation in a repository."""

    search: SyncSearchClient
    settings: Settings

    @classmethod
    @contextmanager
    def of(cls, settings: Settings) -> "Iterator[BackupRepository]":
        """Open the repository of the settings."""
        with closing(SyncSearchClient(settings)) as search:
            yield cls(search, settings)

    @property
    def repository(self) -> str:
        """Return the name of the repository."""
        return self.settings.backup_repository

    @property
    def names(self) -> IndexNames:
        """Return the index names of the installation."""
        return IndexNames(self.settings.index_prefix)

    def ensure_registered(self) -> None:
        """Register the repository unless it is registered.

        Raises ConfigurationError (`no_backup_repository`, `backup_location_refused`).
        """
        location = self.settings.backup_location
        try:
            registered = self.search.send(get_repository_call(self.repository))[self.repository]
        except NotFound:
            pass
        else:
            directory = registered.get("settings", {}).get("location", "")
            if location and (registered.get("type") != "fs" or directory.rstrip("/") != location.rstrip("/")):
                raise ConfigurationError(
                    "backup_location_refused",
                    f"The repository {self.repository!r} is registered with {registered.get('type')} {directory}, not "
                    "with SPARSEWELL_BACKUP_LOCATION: unset SPARSEWELL_BACKUP_LOCATION to use it, or choose another "
                    "SPARSEWELL_BACKUP_REPOSITORY.",
                )
            return
        if not location:
            raise ConfigurationError(
                "no_backup_repository",
                f"OpenSearch has no snapshot repository {self.repository!r}. Register it (s3, azure, gcs, fs), or set "
                "SPARSEWELL_BACKUP_REPOSITORY to another name, or set SPARSEWELL_BACKUP_LOCATION to a directory that "
                "all nodes share.",
            )
        try:
            self.search.send(register_repository_call(self.repository, location))
        except SparsewellError as error:
            if error_type(error) not in ("repository_exception", "repository_verification_exception"):
                raise
            raise ConfigurationError(
                "backup_location_refused",
                f"OpenSearch cannot use the directory {location!r} (SPARSEWELL_BACKUP_LOCATION; {error_type(error)}). "
                "It must be inside a directory of the setting path.repo of each node, and each node must be able to "
                "write to it.",
            ) from None

    def backups(self) -> list[Backup]:
        """Return the backups of this installation, the oldest first."""
        self.ensure_registered()
        return read_backups(self.search.send(get_snapshots_call(self.repository)), self.names)

    def find(self, name: str, *, complete: bool = True) -> Backup:
        """Find a backup by name, also of another installation, or the latest; `complete`: refuse an incomplete one.

        Raises NotFound (`backup_not_found`) and BackendUnavailable (`backup_incomplete`, `backup_damaged`).
        """
        self.ensure_registered()
        backups: list[Backup] = []
        if name == LATEST_BACKUP:
            backups = self._complete_backups()
        elif _NAME.fullmatch(name):
            with suppress(NotFound):
                backups = read_backups(self.search.send(get_snapshots_call(self.repository, name)))
        if not backups:
            missing = "no complete backup" if name == LATEST_BACKUP else f"no backup {name!r} of sparsewell"
            raise NotFound("backup_not_found", f"There is {missing} in the repository {self.repository!r}.")
        if complete and not backups[-1].is_complete:
            raise BackendUnavailable("backup_incomplete", f"The backup {name!r} is not complete: {backups[-1].state}.")
        return backups[-1]

    def _complete_backups(self) -> list[Backup]:
        """Return the complete backups. Raises BackendUnavailable (`backup_damaged`) if the newest is unreadable."""
        listed = self.search.send(list_snapshot_names_call(self.repository))["snapshots"]
        answer = self.search.send(get_snapshots_call(self.repository))
        backups = [backup for backup in read_backups(answer, self.names) if backup.is_complete]
        readable = {snapshot["snapshot"] for snapshot in answer["snapshots"]}
        unreadable = {snapshot["snapshot"] for snapshot in listed} - readable
        own = [name for name in unreadable if name.startswith(f"{self.names.prefix}-")]
        if own and (not backups or max(own) > backups[-1].name):
            raise damaged_backup(max(own), "it is the latest; give the name of an earlier one")
        return backups

    def create(self, report: MessageReporter) -> Backup:
        """Make a backup of the searched generations and the system indexes.

        Raises NotFound (`nothing_to_back_up`) and BackendUnavailable (`backup_failed`).
        """
        self.ensure_registered()
        active = read_active_generations(self.search.send(list_generations_call(self.names)))
        if not active:
            raise NotFound("nothing_to_back_up", f"There is no index with the prefix {self.names.prefix!r}.")
        system = sorted(read_system_indexes(self.search.send(system_indexes_call(self.names)), self.names).values())
        name = new_backup_name(self.names, datetime.now(UTC))
        physical = [*(generation.physical for generation in active), *system]
        report(f"Backing up {', '.join(sorted(generation.index for generation in active))} as {name}.")
        try:
            self.search.send(create_snapshot_call(self.repository, name, self.names, physical, version("sparsewell")))
        except BackendUnavailable as error:
            if error_type(error) != "snapshot_exception":
                raise
            raise BackendUnavailable(
                "backup_failed", "OpenSearch started no backup: an index lacks primary shards, see GET _cat/shards."
            ) from error
        while (backup := self.find(name, complete=False)).state == RUNNING:
            time.sleep(POLL_SECONDS)
        if not backup.is_complete:
            raise BackendUnavailable(
                "backup_failed",
                f"The backup {name} is {backup.state}: {backup.failed} of {backup.shards} shards failed. OpenSearch's "
                "log has the reason. The backup is kept, but cannot be restored.",
            )
        return backup

    def delete_older(self, number: int) -> list[str]:
        """Delete all backups older than the newest `number` complete ones, and return their names."""
        backups = self.backups()
        kept = [backup for backup in backups if backup.is_complete][-number:]
        old = [b.name for b in backups if b.state != RUNNING and kept and b.started_ms < kept[0].started_ms]
        for name in old:
            self.remove(name)
        return old

    def remove(self, name: str) -> None:
        """Delete a backup. Raises NotFound (`backup_not_found`)."""
        self.search.send(delete_snapshot_call(self.repository, self.find(name, complete=False).name))

    def verify(self, name: str) -> Backup:
        """Check that all nodes reach the repository, and that it has the files of a backup.

        Raises BackendUnavailable (`backup_repository_unusable`, `backup_damaged`) and the errors of `find`.
        """
        self.ensure_registered()
        try:
            self.search.send(verify_repository_call(self.repository))
        except BackendUnavailable as error:
            if not error_type(error).startswith("repository"):
                raise
            raise BackendUnavailable(
                "backup_repository_unusable", f"Some nodes cannot use the repository ({error_type(error)})."
            ) from error
        backup = self.find(name)
        try:
            self.search.send(snapshot_status_call(self.repository, backup.name))
        except (BackendUnavailable, NotFound) as error:
            if not error_type(error).startswith(("snapshot", "repository", "no_such_file")):
                raise
            raise damaged_backup(backup.name, error_type(error)) from error
        return backup


def damaged_backup(name: str, reason: str) -> BackendUnavailable:
    """Return the error for a backup with missing files."""
    return BackendUnavailable("backup_damaged", f"The backup {name} cannot be read ({reason}): files are missing.")


def error_type(error: SparsewellError) -> str:
    """Return OpenSearch's type of an error."""
    return str(getattr(error.__cause__, "error", ""))
