"""System indexes in a restore: curation rules, frequent queries, API keys and jobs.

A missing system index is restored as a whole. From an existing one, only the rules and frequent queries of the restored
indexes change. Existing keys and jobs stay, so that a key that was revoked after the backup stays revoked.
`restore_index` restores any index of a backup under a new name.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from uuid import uuid4

from cli.backup.repository import BackupRepository, MessageReporter, damaged_backup
from services.dates import now_ms
from services.errors import BackendUnavailable, Conflict, NotFound, SparsewellError
from services.index_spec import Generation
from services.opensearch.client import Call
from services.opensearch.curation_records import (
    CurationRecord,
    StoredCuration,
    archive_curation_call,
    kept_curation_versions,
    make_curation_calls,
    newest_curation_call,
    older_curations_call,
    read_older_curations,
    read_stored_curation,
    save_curation_call,
)
from services.opensearch.snapshots import SNAPSHOT_TIMEOUT_SECONDS, Backup, index_health_call, restore_index_call
from services.opensearch.suggestions import (
    copy_queries_call,
    make_query_log_calls,
    refresh_queries_call,
    remove_queries_call,
)
from services.opensearch.system_indexes import (
    CreateIndexCalls,
    create_system_index_sync,
    read_system_indexes,
    system_indexes_call,
)

# Time without an initialising shard after which a restore has failed.
STUCK_SHARD_SECONDS = 10.0
POLL_SECONDS = 0.3
# Another client may change the rules of an index at the same time.
MAX_ATTEMPTS = 5


@dataclass(frozen=True)
class RestoredIndex:
    """A restored index: its generation in the backup, and its new generation."""

    source: Generation
    generation: Generation


@dataclass
class RestoredSystemIndexes:
    """Outcome for the system indexes.

    `aliases` maps new indexes to their aliases. `temporary_copies` maps names to copies from which parts are
    merged. `idle` are indexes without an alias, as an interrupted restore leaves them.
    """

    aliases: dict[str, str] = field(default_factory=dict)
    temporary_copies: dict[str, str] = field(default_factory=dict)
    idle: list[str] = field(default_factory=list)


def restore_system_indexes(
    store: BackupRepository, backup: Backup, report: MessageReporter, created: list[str], *, everything: bool
) -> RestoredSystemIndexes:
    """Restore the missing system indexes, and temporary copies of existing rules and frequent queries.

    Without `everything` (a restore of some indexes), only temporary copies are restored. The jobs come last, because
    they have no alias and are visible at once.
    """
    names, restored = store.names, RestoredSystemIndexes()
    existing = store.search.send(system_indexes_call(names)) or {}
    used = read_system_indexes(existing, names)
    restored.idle = [index for index in existing if index not in used.values() and ".try-" not in index]
    for physical in sorted(backup.system_indexes, key=lambda index: (not index.partition(".")[2], index)):
        name, _, number = physical.replace(backup.prefix, names.prefix, 1).partition(".")
        if name in used or not everything:
            if name in (names.curation, names.queries):
                restored.temporary_copies[name] = f"{name}.aside-{uuid4().hex[:8]}"
                restore_index(store, backup, physical, restored.temporary_copies[name], created)
            elif everything:
                report(f"{name} exists and does not change.")
            continue
        report(f"Restoring {name}.")
        numbers = [index.rpartition(".")[2] for index in restored.idle if index.startswith(f"{name}.")]
        next_number = max((int(digits) for digits in numbers if digits.isdigit()), default=0) + 1
        target = f"{name}.{next_number}" if number else name
        restore_index(store, backup, physical, target, created)
        if number:
            restored.aliases[target] = name
    return restored


def merge_system_indexes(
    store: BackupRepository, backup: Backup, system: RestoredSystemIndexes, indexes: Sequence[RestoredIndex]
) -> None:
    """Give the restored indexes the rules and frequent queries of the backup, unless these were restored as a whole."""
    names = store.names
    for index in indexes:
        if names.curation not in system.aliases.values():
            _merge_rules(store, backup, system.temporary_copies.get(names.curation), index)
        if names.queries not in system.aliases.values():
            _merge_queries(store, system.temporary_copies.get(names.queries), index)


def restore_index(store: BackupRepository, backup: Backup, physical: str, target: str, created: list[str]) -> None:
    """Restore an index as `target` and wait for its primary shards. Appends the new name to `created` at once.

    Raises BackendUnavailable (`restore_failed`, `backup_damaged`).
    """
    try:
        store.search.send(restore_index_call(store.repository, backup.name, physical, target))
    except NotFound as error:
        raise damaged_backup(backup.name, "index missing") from error
    created.append(target)
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
                "the backup is missing or damaged, or no node has disk space. OpenSearch's log has the reason. Nothing "
                "has changed.",
            )
        time.sleep(POLL_SECONDS)


def discard_indexes(store: BackupRepository, created: Iterable[str]) -> None:
    """Delete restored indexes and ignore errors."""
    for physical in created:
        with suppress(SparsewellError):
            store.search.send(Call("DELETE", f"/{physical}"))


def _merge_rules(store: BackupRepository, backup: Backup, copy: str | None, index: RestoredIndex) -> None:
    """Restore the rules of an index. Existing rules get a new version, so that later changes stay in the history."""
    source, target = index.source, index.generation
    backed_up = None
    if copy is not None:
        backed_up = _record_of_generation(source, _read_newest_curation(store, source.index, copy))
    for attempt in range(1, MAX_ATTEMPTS + 1):
        stored = _read_newest_curation(store, target.index)
        current = _record_of_generation(target, stored)
        if current is not None:
            rules = {} if backed_up is None else backed_up.rules
            if rules == current.rules:
                return
            note = f"as in the backup {backup.name}"
            record = replace(current, version=current.version + 1, at=now_ms(), note=note, rules=rules)
            older = [current]
        elif backed_up is not None and copy is not None:
            record = _rename_record(target, backed_up)
            older = [_rename_record(target, version) for version in _read_older_versions(store, backed_up, copy)]
        else:
            return
        try:
            return _save_rules(store, record, stored, older)
        except Conflict:
            if attempt == MAX_ATTEMPTS:
                raise


def _save_rules(
    store: BackupRepository, record: CurationRecord, expected: StoredCuration | None, older: Sequence[CurationRecord]
) -> None:
    _ensure_index(store, store.names.curation, make_curation_calls(store.names, store.settings.replicas))
    for version in older:
        with suppress(Conflict):
            store.search.send(archive_curation_call(store.names, version))
    store.search.send(save_curation_call(store.names, record, expected))


def _merge_queries(store: BackupRepository, copy: str | None, index: RestoredIndex) -> None:
    names = store.names
    store.search.send(refresh_queries_call(names))
    store.search.send(remove_queries_call(names, index.generation.index))
    if copy is not None:
        _ensure_index(store, names.queries, make_query_log_calls(names, store.settings.replicas))
        store.search.send(copy_queries_call(names, copy, index.source, index.generation, SNAPSHOT_TIMEOUT_SECONDS))


def _ensure_index(store: BackupRepository, name: str, making: CreateIndexCalls) -> None:
    if name not in read_system_indexes(store.search.send(system_indexes_call(store.names)), store.names):
        create_system_index_sync(store.search, making)


def _read_newest_curation(store: BackupRepository, index: str, source_index: str = "") -> StoredCuration | None:
    return read_stored_curation(store.search.send(newest_curation_call(store.names, index, source_index=source_index)))


def _record_of_generation(generation: Generation, stored: StoredCuration | None) -> CurationRecord | None:
    return stored.record if stored is not None and stored.of(generation) else None


def _rename_record(generation: Generation, record: CurationRecord) -> CurationRecord:
    return replace(record, index=generation.index, lineage=generation.lineage)


def _read_older_versions(store: BackupRepository, record: CurationRecord, source_index: str) -> list[CurationRecord]:
    numbers = kept_curation_versions(record.version)
    if not numbers:
        return []
    call = older_curations_call(
        store.names, record.index, record.lineage, numbers, rules=True, source_index=source_index
    )
    return read_older_curations(store.search.send(call))
