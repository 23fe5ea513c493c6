"""The repository of backups: there or made, looked through, rid of what is old."""

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
    read_system_indexes,
    register_repository_call,
    snapshot_status_call,
    system_indexes_call,
    verify_repository_call,
)
from services.settings import Settings

MessageReporter = Callable[[str], None]
LATEST_BACKUP = "latest"
# As ours are named. To OpenSearch `*`, `_all` and commas are several snapshots.
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,254}")
# How often OpenSearch is asked how far it is.
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class BackupRepository:
    """Backups of one installation in one repository."""

    search: SyncSearchClient
    settings: Settings

    @classmethod
    @contextmanager
    def of(cls, settings: Settings) -> "Iterator[BackupRepository]":
        with closing(SyncSearchClient(settings)) as search:
            yield cls(search, settings)

    @property
    def repository(self) -> str:
        return self.settings.backup_repository

    @property
    def names(self) -> IndexNames:
        return IndexNames(self.settings.index_prefix)

    def ready(self) -> None:
        """Makes sure that there is a repository. Raises ConfigurationError (`no_backup_repository`,
        `backup_location_refused`).
        """
        location = self.settings.backup_location
        try:
            found = self.search.send(get_repository_call(self.repository))[self.repository]
        except NotFound:
            pass
        else:
            there = found.get("settings", {}).get("location", "")
            if location and (found.get("type") != "fs" or there.rstrip("/") != location.rstrip("/")):
                raise ConfigurationError(
                    "backup_location_refused",
                    f"The repository {self.repository!r} is registered elsewhere ({found.get('type')} {there}) and "
                    "not in SPARSEWELL_BACKUP_LOCATION: leave that away to use it, or name another with "
                    "SPARSEWELL_BACKUP_REPOSITORY.",
                )
            return
        if not location:
            raise ConfigurationError(
                "no_backup_repository",
                f"OpenSearch has no snapshot repository {self.repository!r}. Register one (s3, azure, gcs, fs) under "
                "that name, or name another with SPARSEWELL_BACKUP_REPOSITORY, or have a directory registered that all "
                "nodes share: SPARSEWELL_BACKUP_LOCATION.",
            )
        try:
            self.search.send(register_repository_call(self.repository, location))
        except SparsewellError as error:
            if error_type(error) not in ("repository_exception", "repository_verification_exception"):
                raise
            raise ConfigurationError(
                "backup_location_refused",
                f"OpenSearch cannot use the directory {location!r} (SPARSEWELL_BACKUP_LOCATION; {error_type(error)}): it "
                "must lie in a directory that each node names in its setting path.repo, and be writable for each.",
            ) from None

    def backups(self) -> list[Backup]:
        """Those of this installation, the oldest first."""
        self.ready()
        return read_backups(self.search.send(get_snapshots_call(self.repository)), self.names)

    def find(self, name: str, *, whole: bool = True) -> Backup:
        """A backup by name, of another installation too, or the latest. Raises NotFound (`backup_not_found`) and
        BackendUnavailable (`backup_incomplete`, `backup_damaged`).
        """
        self.ready()
        found: list[Backup] = []
        if name == LATEST_BACKUP:
            found = self._readable()
        elif _NAME.fullmatch(name):
            with suppress(NotFound):
                found = read_backups(self.search.send(get_snapshots_call(self.repository, name)))
        if not found:
            what = "no backup that is whole" if name == LATEST_BACKUP else f"no backup {name!r} of sparsewell's"
            raise NotFound("backup_not_found", f"There is {what} in the repository {self.repository!r}.")
        if whole and not found[-1].whole:
            raise BackendUnavailable("backup_incomplete", f"The backup {name!r} is not whole: {found[-1].state}.")
        return found[-1]

    def _readable(self) -> list[Backup]:
        """Those that are whole. Raises BackendUnavailable (`backup_damaged`) where the newest cannot even be read."""
        named = {one["snapshot"] for one in self.search.send(list_snapshot_names_call(self.repository))["snapshots"]}
        answer = self.search.send(get_snapshots_call(self.repository))
        found = [one for one in read_backups(answer, self.names) if one.whole]
        unread = named - {one["snapshot"] for one in answer["snapshots"]}
        ours = [one for one in unread if one.startswith(f"{self.names.prefix}-")]
        if ours and (not found or max(ours) > found[-1].name):
            raise damaged_backup(max(ours), "it is the latest; name an earlier one to have that")
        return found

    def take(self, say: MessageReporter) -> Backup:
        """Makes a backup of everything that is searched, and of our own indexes.

        Raises NotFound (`nothing_to_back_up`) and BackendUnavailable (`backup_failed`).
        """
        self.ready()
        active = read_active_generations(self.search.send(list_generations_call(self.names)))
        if not active:
            raise NotFound("nothing_to_back_up", f"There is no index with the prefix {self.names.prefix!r}.")
        own = sorted(read_system_indexes(self.search.send(system_indexes_call(self.names)), self.names).values())
        name = new_backup_name(self.names, datetime.now(UTC))
        physical = [*(one.physical for one in active), *own]
        say(f"Backing up {', '.join(sorted(one.index for one in active))} as {name}.")
        try:
            self.search.send(create_snapshot_call(self.repository, name, self.names, physical, version("sparsewell")))
        except BackendUnavailable as error:
            if error_type(error) != "snapshot_exception":
                raise
            raise BackendUnavailable(
                "backup_failed", "OpenSearch began no backup: an index lacks primary shards, see GET _cat/shards."
            ) from error
        while (made := self.find(name, whole=False)).state == RUNNING:
            time.sleep(POLL_SECONDS)
        if not made.whole:
            raise BackendUnavailable(
                "backup_failed",
                f"The backup {name} is {made.state}, {made.failed} of {made.shards} shards failed: OpenSearch's log "
                "says why. It is kept for that and never restored.",
            )
        return made

    def keep(self, number: int) -> list[str]:
        """Removes all whole backups but the newest `number`, and those before them that are not whole; their names."""
        every = self.backups()
        kept = [one for one in every if one.whole][-number:]
        old = [one.name for one in every if one.state != RUNNING and kept and one.began < kept[0].began]
        for name in old:
            self.remove(name)
        return old

    def remove(self, name: str) -> None:
        """Raises NotFound (`backup_not_found`)."""
        self.search.send(delete_snapshot_call(self.repository, self.find(name, whole=False).name))

    def verify(self, name: str) -> Backup:
        """Whether all nodes reach the repository, and it has what it says of this backup.

        Raises BackendUnavailable (`backup_repository_unusable`, `backup_damaged`) besides what `find` does.
        """
        self.ready()
        try:
            self.search.send(verify_repository_call(self.repository))
        except BackendUnavailable as error:
            if not error_type(error).startswith("repository"):
                raise
            raise BackendUnavailable(
                "backup_repository_unusable", f"Not every node can use the repository ({error_type(error)})."
            ) from error
        backup = self.find(name)
        try:
            self.search.send(snapshot_status_call(self.repository, backup.name))
        except (BackendUnavailable, NotFound) as error:
            if not error_type(error).startswith(("snapshot", "repository", "no_such_file")):
                raise
            raise damaged_backup(backup.name, error_type(error)) from error
        return backup


def damaged_backup(name: str, why: str) -> BackendUnavailable:
    """The error for a backup of which something is missing."""
    return BackendUnavailable("backup_damaged", f"The backup {name} cannot be read ({why}): files are missing.")


def error_type(error: SparsewellError) -> str:
    """OpenSearch's own word for an error."""
    return str(getattr(error.__cause__, "error", ""))
