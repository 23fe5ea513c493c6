"""One index out of a backup, under a name that nobody knows yet."""

import time
from collections.abc import Iterable
from contextlib import suppress

from cli.backups.store import Store, damaged
from services.errors import BackendUnavailable, NotFound, SparsewellError
from services.opensearch.backups import Backup, health_call, restore_call
from services.opensearch.client import Call

# An index whose shards nobody restores for so long will not be restored.
STUCK_SECONDS = 10.0
LOOK_SECONDS = 0.3


def bring(store: Store, backup: Backup, physical: str, target: str, made: list[str]) -> None:
    """Restores one index as `target`, until its primary shards are there; `made` gets its name at once.

    Raises BackendUnavailable (`restore_failed`, `backup_damaged`).
    """
    try:
        store.search.send(restore_call(store.repository, backup.name, physical, target))
    except NotFound as error:
        raise damaged(backup.name, "index missing") from error
    made.append(target)
    stuck_since = None
    while True:
        health = store.search.send(health_call(target))["indices"][target]
        if health["active_primary_shards"] == health["number_of_shards"]:
            return
        if health["initializing_shards"]:
            stuck_since = None
        elif stuck_since is None:
            stuck_since = time.monotonic()
        elif time.monotonic() - stuck_since > STUCK_SECONDS:
            raise BackendUnavailable(
                "restore_failed",
                f"{health['unassigned_shards']} shards of {physical} cannot be restored from {backup.name}: a file of "
                "the backup is missing or damaged, or no node has room. Nothing is changed; OpenSearch's log says why.",
            )
        time.sleep(LOOK_SECONDS)


def discard(store: Store, made: Iterable[str]) -> None:
    """Removes what was brought, without insisting."""
    for physical in made:
        with suppress(SparsewellError):
            store.search.send(Call("DELETE", f"/{physical}"))
