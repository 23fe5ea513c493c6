"""Our own indexes in a restore: whole where there is none, else what they hold of the indexes that are restored.

Rules and learned queries belong to an index, so they come with it; those of other indexes are left as they are.
Keys and jobs that are there stay: a key that was revoked since stays revoked.

One index out of a backup, under a name that nobody knows yet.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from uuid import uuid4

from cli.backup.repository import BackupRepository, MessageReporter, damaged_backup
from services.errors import BackendUnavailable, Conflict, NotFound, SparsewellError
from services.index_spec import Generation
from services.opensearch.client import Call
from services.opensearch.journal import now_ms
from services.opensearch.snapshots import (
    SNAPSHOT_TIMEOUT_SECONDS,
    Backup,
    index_health_call,
    read_system_indexes,
    restore_index_call,
    system_indexes_call,
)
from services.opensearch.suggestions import (
    copy_queries_call,
    make_query_log_calls,
    refresh_queries_call,
    remove_queries_call,
)
from services.opensearch.system_indexes import (
    CreateIndexCalls,
    CurationRecord,
    StoredCuration,
    archive_curation_call,
    create_system_index_sync,
    kept_curation_versions,
    make_curation_calls,
    newest_curation_call,
    older_curations_call,
    read_older_curations,
    read_stored_curation,
    save_curation_call,
)

# An index whose shards nobody restores for so long will not be restored.
STUCK_SHARD_SECONDS = 10.0
POLL_SECONDS = 0.3


def restore_index(store: BackupRepository, backup: Backup, physical: str, target: str, made: list[str]) -> None:
    """Restores one index as `target`, until its primary shards are there; `made` gets its name at once.

    Raises BackendUnavailable (`restore_failed`, `backup_damaged`).
    """
    try:
        store.search.send(restore_index_call(store.repository, backup.name, physical, target))
    except NotFound as error:
        raise damaged_backup(backup.name, "index missing") from error
    made.append(target)
    stuck_since = None
    while True:
        health = store.search.send(index_health_call(target))["indices"][target]
        if health["active_primary_shards"] == health["number_of_shards"]:
            return
        if health["initializing_shards"]:
            stuck_since = None
        elif stuck_since is None:
            stuck_since = time.monotonic()
        elif time.monotonic() - stuck_since > STUCK_SHARD_SECONDS:
            raise BackendUnavailable(
                "restore_failed",
                f"{health['unassigned_shards']} shards of {physical} cannot be restored from {backup.name}: a file of "
                "the backup is missing or damaged, or no node has room. Nothing is changed; OpenSearch's log says why.",
            )
        time.sleep(POLL_SECONDS)


def discard_indexes(store: BackupRepository, made: Iterable[str]) -> None:
    """Removes what was brought, without insisting."""
    for physical in made:
        with suppress(SparsewellError):
            store.search.send(Call("DELETE", f"/{physical}"))


# Somebody may change the rules of an index just then.
MAX_ATTEMPTS = 5


@dataclass(frozen=True)
class RestoredIndex:
    """An index as it was when it was backed up, and as it is from now on."""

    source: Generation
    generation: Generation


@dataclass
class RestoredSystemIndexes:
    """What came of our own indexes.

    `aliases`: by new index the name that it gets; `aside`: by name a copy of which parts are taken; `idle`: indexes
    that were found without their name, as a restore leaves them that was cut off.
    """

    aliases: dict[str, str] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)
    idle: list[str] = field(default_factory=list)


def restore_system_indexes(
    store: BackupRepository, backup: Backup, say: MessageReporter, made: list[str], *, everything: bool
) -> RestoredSystemIndexes:
    """Restores those that are missing; of rules and learned queries that are there, or wanted of some indexes, a copy.

    The jobs come last: they have their name at once.
    """
    names, own = store.names, RestoredSystemIndexes()
    there = store.search.send(system_indexes_call(names)) or {}
    used = read_system_indexes(there, names)
    own.idle = [one for one in there if one not in used.values() and ".try-" not in one]
    for physical in sorted(backup.own, key=lambda one: (not one.partition(".")[2], one)):
        name, _, number = physical.replace(backup.prefix, names.prefix, 1).partition(".")
        if name in used or not everything:
            if name in (names.curation, names.queries):
                own.aside[name] = f"{name}.aside-{uuid4().hex[:8]}"
                restore_index(store, backup, physical, own.aside[name], made)
            elif everything:
                say(f"{name} is kept as it is.")
            continue
        say(f"Restoring {name}.")
        taken = [one.rpartition(".")[2] for one in own.idle if one.startswith(f"{name}.")]
        target = f"{name}.{max((int(one) for one in taken if one.isdigit()), default=0) + 1}" if number else name
        restore_index(store, backup, physical, target, made)
        if number:
            own.aliases[target] = name
    return own


def merge_system_indexes(
    store: BackupRepository, backup: Backup, own: RestoredSystemIndexes, brought: Sequence[RestoredIndex]
) -> None:
    """Gives the restored indexes the rules and learned queries of the backup, where these did not come whole."""
    names = store.names
    for one in brought:
        if names.curation not in own.aliases.values():
            _merge_rules(store, backup, own.aside.get(names.curation), one)
        if names.queries not in own.aliases.values():
            _merge_queries(store, own.aside.get(names.queries), one)


def _merge_rules(store: BackupRepository, backup: Backup, aside: str | None, one: RestoredIndex) -> None:
    """As one more version where the index has rules, so that what was changed since can be looked up."""
    target = one.generation
    then = (
        None
        if aside is None
        else _record_of_generation(one.source, _read_newest_curation(store, one.source.index, aside))
    )
    for attempt in range(1, MAX_ATTEMPTS + 1):
        stored = _read_newest_curation(store, target.index)
        now = _record_of_generation(target, stored)
        if now is not None:
            rules = {} if then is None else then.rules
            if rules == now.rules:
                return
            note = f"as in the backup {backup.name}"
            record, older = replace(now, version=now.version + 1, at=now_ms(), note=note, rules=rules), [now]
        elif then is not None and aside is not None:
            record, older = (
                _rename_record(target, then),
                [_rename_record(target, version) for version in _read_older_versions(store, then, aside)],
            )
        else:
            return
        try:
            return _save_rules(store, record, stored, older)
        except Conflict:
            if attempt == MAX_ATTEMPTS:
                raise


def _save_rules(
    store: BackupRepository, record: CurationRecord, seen: StoredCuration | None, older: Sequence[CurationRecord]
) -> None:
    _ensure_index(store, store.names.curation, make_curation_calls(store.names, store.settings.replicas))
    for version in older:
        with suppress(Conflict):
            store.search.send(archive_curation_call(store.names, version))
    store.search.send(save_curation_call(store.names, record, seen))


def _merge_queries(store: BackupRepository, aside: str | None, one: RestoredIndex) -> None:
    names = store.names
    store.search.send(refresh_queries_call(names))
    store.search.send(remove_queries_call(names, one.generation.index))
    if aside is not None:
        _ensure_index(store, names.queries, make_query_log_calls(names, store.settings.replicas))
        store.search.send(copy_queries_call(names, aside, one.source, one.generation, SNAPSHOT_TIMEOUT_SECONDS))


def _ensure_index(store: BackupRepository, name: str, making: CreateIndexCalls) -> None:
    if name not in read_system_indexes(store.search.send(system_indexes_call(store.names)), store.names):
        create_system_index_sync(store.search, making)


def _read_newest_curation(store: BackupRepository, index: str, kept_in: str = "") -> StoredCuration | None:
    return read_stored_curation(store.search.send(newest_curation_call(store.names, index, kept_in=kept_in)))


def _record_of_generation(generation: Generation, stored: StoredCuration | None) -> CurationRecord | None:
    return stored.record if stored is not None and stored.of(generation) else None


def _rename_record(generation: Generation, record: CurationRecord) -> CurationRecord:
    return replace(record, index=generation.index, lineage=generation.lineage)


def _read_older_versions(store: BackupRepository, record: CurationRecord, kept_in: str) -> list[CurationRecord]:
    numbers = kept_curation_versions(record.version)
    if not numbers:
        return []
    call = older_curations_call(store.names, record.index, record.lineage, numbers, rules=True, kept_in=kept_in)
    return read_older_curations(store.search.send(call))
