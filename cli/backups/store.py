"""The repository of backups: there or made, looked through, rid of what is old."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from services.errors import BackendUnavailable, ConfigurationError, NotFound, SparsewellError
from services.index_spec import Names
from services.opensearch.backups import (
    RUNNING,
    Backup,
    new_name,
    own_indexes_call,
    read_backups,
    recorded_call,
    register_call,
    remove_call,
    repository_call,
    status_call,
    take_call,
    verify_call,
)
from services.opensearch.client import SyncSearch
from services.opensearch.generations import list_call, read_active
from services.settings import Settings

Say = Callable[[str], None]
LATEST = "latest"
# How often OpenSearch is asked how far it is.
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Store:
    """Backups of one installation in one repository."""

    search: SyncSearch
    settings: Settings

    @classmethod
    @contextmanager
    def of(cls, settings: Settings) -> "Iterator[Store]":
        with closing(SyncSearch(settings)) as search:
            yield cls(search, settings)

    @property
    def repository(self) -> str:
        return self.settings.backup_repository

    @property
    def names(self) -> Names:
        return Names(self.settings.index_prefix)

    def ready(self) -> None:
        """Makes sure that there is a repository. Raises ConfigurationError (`no_backup_repository`,
        `backup_location_refused`).
        """
        try:
            self.search.send(repository_call(self.repository))
            return
        except NotFound:
            pass
        location = self.settings.backup_location
        if not location:
            raise ConfigurationError(
                "no_backup_repository",
                f"OpenSearch has no snapshot repository {self.repository!r}. Register one (s3, azure, gcs, fs) under "
                "that name, or name another with SPARSEWELL_BACKUP_REPOSITORY, or have a directory registered that all "
                "nodes share: SPARSEWELL_BACKUP_LOCATION.",
            )
        try:
            self.search.send(register_call(self.repository, location))
        except SparsewellError as error:
            if kind(error) not in ("repository_exception", "repository_verification_exception"):
                raise
            raise ConfigurationError(
                "backup_location_refused",
                f"OpenSearch cannot use the directory {location!r} (SPARSEWELL_BACKUP_LOCATION; {kind(error)}): it "
                "must lie in a directory that each node names in its setting path.repo, and be writable for each.",
            ) from None

    def backups(self) -> list[Backup]:
        """Those of this installation, the oldest first."""
        self.ready()
        return read_backups(self.search.send(recorded_call(self.repository)), self.names)

    def find(self, name: str, *, whole: bool = True) -> Backup:
        """A backup by name, of another installation too, or the latest. Raises NotFound (`backup_not_found`) and
        BackendUnavailable (`backup_incomplete`).
        """
        self.ready()
        if name == LATEST:
            found = [one for one in self.backups() if one.whole]
        else:
            try:
                found = read_backups(self.search.send(recorded_call(self.repository, name)))
            except NotFound:
                found = []
        if not found:
            what = "no backup that is whole" if name == LATEST else f"no backup {name!r} of sparsewell's"
            raise NotFound("backup_not_found", f"There is {what} in the repository {self.repository!r}.")
        if whole and not found[-1].whole:
            raise BackendUnavailable("backup_incomplete", f"The backup {name!r} is not whole: {found[-1].state}.")
        return found[-1]

    def take(self, say: Say) -> Backup:
        """Makes a backup of everything that is searched, and of our own indexes.

        Raises NotFound (`nothing_to_back_up`) and BackendUnavailable (`backup_failed`).
        """
        self.ready()
        active = read_active(self.search.send(list_call(self.names)))
        if not active:
            raise NotFound("nothing_to_back_up", f"There is no index with the prefix {self.names.prefix!r}.")
        own = sorted(self.search.send(own_indexes_call(self.names)) or {})
        name = new_name(self.names, datetime.now(UTC))
        physical = [*(one.physical for one in active), *own]
        say(f"Backing up {', '.join(sorted(one.index for one in active))} as {name}.")
        self.search.send(take_call(self.repository, name, self.names, physical, version("sparsewell")))
        while (made := self.find(name, whole=False)).state == RUNNING:
            time.sleep(LOOK_SECONDS)
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
        self.search.send(remove_call(self.repository, self.find(name, whole=False).name))

    def verify(self, name: str) -> Backup:
        """Whether all nodes reach the repository, and it has what it says of this backup.

        Raises BackendUnavailable (`backup_repository_unusable`, `backup_damaged`) besides what `find` does.
        """
        self.ready()
        try:
            self.search.send(verify_call(self.repository))
        except BackendUnavailable as error:
            if not kind(error).startswith("repository"):
                raise
            raise BackendUnavailable(
                "backup_repository_unusable", f"Not every node can use the repository ({kind(error)})."
            ) from error
        backup = self.find(name)
        try:
            self.search.send(status_call(self.repository, backup.name))
        except (BackendUnavailable, NotFound) as error:
            if not kind(error).startswith(("snapshot", "repository", "no_such_file")):
                raise
            raise damaged(backup, kind(error)) from error
        return backup


def damaged(backup: Backup, why: str) -> BackendUnavailable:
    """The error for a backup of which something is missing."""
    return BackendUnavailable("backup_damaged", f"The backup {backup.name} cannot be read ({why}): files are missing.")


def kind(error: SparsewellError) -> str:
    """OpenSearch's own word for an error."""
    return str(getattr(error.__cause__, "error", ""))
