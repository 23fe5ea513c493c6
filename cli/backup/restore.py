"""Restore of a backup as new generations of its indexes.

The indexes are restored under new names, and all aliases switch in one step afterwards. So nothing is replaced before
the whole backup has been read, and no search sees a part of an index.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from cli.backup.repository import BackupRepository, MessageReporter
from cli.backup.system_indexes import (
    RestoredIndex,
    RestoredSystemIndexes,
    discard_indexes,
    merge_system_indexes,
    restore_index,
    restore_system_indexes,
)
from services.errors import BackendUnavailable, Conflict, InvalidInput, NotFound
from services.index_spec import Generation, validate_index_name
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import (
    count_states_call,
    delete_generations_call,
    generation_call,
    index_generations_call,
    list_generations_call,
    read_active_generations,
    read_generations,
    read_state_counts,
    record_generation_call,
    refresh_call,
)
from services.opensearch.reindex import ReindexRecords
from services.opensearch.snapshots import Backup, forget_jobs_call, forget_outcomes_call, publish_restored_call
from services.opensearch.system_indexes import read_system_indexes, system_indexes_call

# Upper limit of the time between taking an idempotency key and storing the outcome.
MAX_OUTCOME_DELAY_MS = 3_600_000
# The API caches the aliases for two seconds.
ALIAS_CACHE_SECONDS = 3.0


@dataclass(frozen=True)
class RestoreRequest:
    """Options of a restore.

    Without `indexes`, all indexes and the system indexes are restored. `under` is a new name for a single index.
    `documents_only` leaves out the system indexes, for a backup in which only they are damaged.
    """

    indexes: tuple[str, ...] = ()
    under: str | None = None
    replace: bool = False
    documents_only: bool = False

    def targets(self, backup: Backup) -> dict[str, str]:
        """Return the new name of each index of the backup.

        Raises NotFound (`index_not_in_backup`), InvalidInput (`one_index_by_another_name`).
        """
        missing = [index for index in self.indexes if index not in backup.generations]
        if missing:
            raise NotFound(
                "index_not_in_backup",
                f"The backup {backup.name} has {', '.join(sorted(backup.generations))}, but no {', '.join(missing)}.",
            )
        if self.under is None:
            return {index: index for index in self.indexes or sorted(backup.generations)}
        if len(self.indexes) != 1:
            raise InvalidInput(
                "one_index_by_another_name", "--as gives a new name to a single index: give one --index."
            )
        return {self.indexes[0]: validate_index_name(self.under)}


@dataclass(frozen=True)
class RestoreResult:
    """The restored indexes, and their documents by state."""

    generations: Sequence[Generation]
    documents: Mapping[str, Mapping[str, int]]


def restore_backup(
    store: BackupRepository, backup: Backup, request: RestoreRequest, report: MessageReporter
) -> RestoreResult:
    """Restore a backup and return the new generations.

    Nothing has changed after an error: Conflict (`restore_exists`, `reindex_unfinished`), BackendUnavailable
    (`restore_failed`, `backup_damaged`).
    """
    targets = request.targets(backup)
    existing = {target: _generations(store, target) for target in targets.values()}
    _require_free_names(store, existing, request.replace)
    replaced = [generation for generations in existing.values() for generation in generations]
    created: list[str] = []
    restored: list[RestoredIndex] = []
    system = RestoredSystemIndexes()
    try:
        for index, target in targets.items():
            number = max((generation.number for generation in existing[target]), default=0) + 1
            physical = store.names.physical(target, number)
            report(f"Restoring {index} of {backup.started_at} as {physical}.")
            restore_index(store, backup, backup.generations[index], physical, created)
            restored.append(_assign_generation(store.search, target, number, physical))
        if not request.documents_only:
            system = restore_system_indexes(store, backup, report, created, everything=not request.indexes)
        if store.names.jobs in created:
            _forget_job_outcomes(store, backup)
        _switch_aliases(store, restored, replaced, system)
    except BaseException:
        if not _is_switched(store, restored):
            discard_indexes(store, created)
        raise
    report("The restored indexes are searched now.")
    try:
        if store.names.jobs not in created:
            _forget_jobs(store, backup, targets.values())
        if not request.documents_only:
            merge_system_indexes(store, backup, system, restored)
    finally:
        discard_indexes(store, system.temporary_copies.values())
    generations = [index.generation for index in restored]
    documents = {generation.index: _count_states(store.search, generation.physical) for generation in generations}
    _remove_replaced(store, existing, system, report)
    return RestoreResult(generations, documents)


def try_restore(store: BackupRepository, backup: Backup, report: MessageReporter) -> Mapping[str, Mapping[str, int]]:
    """Restore each index of a backup under a temporary name, count its documents, and delete it."""
    indexes = {physical: index for index, physical in backup.generations.items()}
    counts = {}
    for physical in [*sorted(indexes), *backup.system_indexes]:
        created: list[str] = []
        name = physical.replace(backup.prefix, store.names.prefix, 1).partition(".")[0]
        report(f"Restoring {physical} under a temporary name.")
        try:
            restore_index(store, backup, physical, f"{name}.try-{uuid4().hex[:8]}", created)
            if physical in indexes:
                counts[indexes[physical]] = _count_states(store.search, created[0])
        finally:
            discard_indexes(store, created)
    return counts


def _require_free_names(store: BackupRepository, existing: Mapping[str, Sequence[Generation]], replace: bool) -> None:
    taken = sorted(index for index, generations in existing.items() if generations)
    if taken and not replace:
        active = read_active_generations(store.search.send(list_generations_call(store.names)))
        searched = {generation.index for generation in active}
        idle = [index for index in taken if index not in searched]
        left = f" (Not searched: {', '.join(idle)}, for example after an interrupted restore.)" if idle else ""
        raise Conflict(
            "restore_exists",
            f"{', '.join(taken)} exists already.{left} Restore it under another name (--index NAME --as OTHER), or "
            "replace it (--replace). A replaced index loses what was written since the backup: make a backup first.",
        )
    records = ReindexRecords(store.search, store.settings)
    for index in taken:
        record = records.load(index)
        if record is not None and record.step != "swapped":
            raise Conflict(
                "reindex_unfinished",
                f"A reindex of {index} is not finished: finish it, or `sparsewell generations abort {index}`.",
            )


def _assign_generation(search: SyncSearchClient, index: str, number: int, physical: str) -> RestoredIndex:
    """Record a restored index as a generation.

    It gets a new token, so that it refuses writes that are still queued for the generation that was backed up.
    """
    try:
        (source,) = read_generations(search.send(generation_call(physical)))
    except ValueError as error:
        raise BackendUnavailable(
            "restore_failed",
            f"The description of {physical} is from a later version of sparsewell: use that version.",
        ) from error
    lineage = {} if source.index == index else {"lineage": uuid4().hex}
    place = {"index": index, "number": number, "physical": physical, "token": uuid4().hex[:12]}
    # Piece frequencies are not in a backup: the sweeper counts the restored generation anew.
    uncounted = {"frequencies": 0, "counted": 0}
    generation = source.model_copy(update=place | lineage | uncounted)
    search.send(record_generation_call(generation, physical))
    return RestoredIndex(source, generation)


def _switch_aliases(
    store: BackupRepository,
    restored: Sequence[RestoredIndex],
    replaced: Sequence[Generation],
    system: RestoredSystemIndexes,
) -> None:
    try:
        store.search.send(publish_restored_call([index.generation for index in restored], replaced, system.aliases))
    except BackendUnavailable:
        # The switch may have happened, and only its answer is lost or late.
        if not _is_switched(store, restored):
            raise


def _is_switched(store: BackupRepository, restored: Sequence[RestoredIndex]) -> bool:
    """Tell whether the aliases point to the restored indexes. Raises BackendUnavailable."""
    active = read_active_generations(store.search.send(list_generations_call(store.names)))
    physical = {generation.physical for generation in active}
    return any(index.generation.physical in physical for index in restored)


def _remove_replaced(
    store: BackupRepository,
    existing: Mapping[str, Sequence[Generation]],
    system: RestoredSystemIndexes,
    report: MessageReporter,
) -> None:
    """Delete the replaced indexes, and system indexes without an alias that an earlier restore left."""
    if any(existing.values()):
        report("Deleting the replaced indexes.")
        time.sleep(ALIAS_CACHE_SECONDS)
        for index, replaced in existing.items():
            if replaced:
                store.search.send(delete_generations_call(replaced))
                _forget_reindex(store, index)
    if system.idle:
        used = read_system_indexes(store.search.send(system_indexes_call(store.names)), store.names)
        discard_indexes(store, (index for index in system.idle if index not in used.values()))


def _forget_job_outcomes(store: BackupRepository, backup: Backup) -> None:
    """Forget the outcomes of idempotency keys whose documents may be missing, before the jobs are visible."""
    delay = max(MAX_OUTCOME_DELAY_MS, int(store.settings.idempotency_hours * 3_600_000))
    store.search.send(forget_outcomes_call(store.names.jobs, backup.started_ms - delay))


def _forget_jobs(store: BackupRepository, backup: Backup, indexes: Collection[str]) -> None:
    """Forget the jobs of the restored indexes, if the job index was not restored, after the aliases have switched."""
    with suppress(NotFound):
        store.search.send(forget_jobs_call(store.names.jobs, indexes, backup.started_ms - MAX_OUTCOME_DELAY_MS))


def _forget_reindex(store: BackupRepository, index: str) -> None:
    records = ReindexRecords(store.search, store.settings)
    record = records.load(index)
    if record is not None:
        records.forget(record)


def _generations(store: BackupRepository, index: str) -> list[Generation]:
    return read_generations(store.search.send(index_generations_call(store.names, index)) or {})


def _count_states(search: SyncSearchClient, physical: str) -> dict[str, int]:
    search.send(refresh_call(physical))
    return read_state_counts(search.send(count_states_call(physical)))
