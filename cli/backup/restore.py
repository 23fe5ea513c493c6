"""A backup becomes new generations: restored aside, made whole, and only then seen, all in one step.

So nothing is overwritten while it is not certain that the backup can be read, and no search meets half an index.
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
    refresh_call,
)
from services.opensearch.reindex import ReindexRecords
from services.opensearch.snapshots import (
    Backup,
    forget_jobs_call,
    forget_outcomes_call,
    publish_restored_call,
    read_system_indexes,
    record_generation_call,
    system_indexes_call,
)

# What a request with a key takes at most between taking the key and storing its outcome.
SETTLED_JOB_MS = 3_600_000
# An API remembers for two seconds which generation is searched.
ALIAS_CACHE_SECONDS = 3.0


@dataclass(frozen=True)
class RestoreRequest:
    """What to restore of a backup. `indexes` empty: all of them, and our own; `under`: one of them, by another name.

    `documents_only`: nothing of our own, for a backup of which just that cannot be read.
    """

    indexes: tuple[str, ...] = ()
    under: str | None = None
    replace: bool = False
    documents_only: bool = False

    def targets(self, backup: Backup) -> dict[str, str]:
        """By index of the backup the name that it gets. Raises NotFound and InvalidInput."""
        missing = [index for index in self.indexes if index not in backup.generations]
        if missing:
            raise NotFound(
                "index_not_in_backup",
                f"The backup {backup.name} has {', '.join(sorted(backup.generations))}, and no {', '.join(missing)}.",
            )
        if self.under is None:
            return {index: index for index in self.indexes or sorted(backup.generations)}
        if len(self.indexes) != 1:
            raise InvalidInput(
                "one_index_by_another_name", "--as takes the place of one index's name: name one --index."
            )
        return {self.indexes[0]: validate_index_name(self.under)}


@dataclass(frozen=True)
class RestoreResult:
    """What came back: the indexes as they are now, and their documents by state."""

    generations: Sequence[Generation]
    documents: Mapping[str, Mapping[str, int]]


def restore_backup(
    store: BackupRepository, backup: Backup, wanted: RestoreRequest, say: MessageReporter
) -> RestoreResult:
    """Raises Conflict (`restore_exists`, `reindex_unfinished`) before anything is touched; BackendUnavailable
    (`restore_failed`, `backup_damaged`) when it is as it was.
    """
    targets = wanted.targets(backup)
    existing = {target: _generations(store, target) for target in targets.values()}
    _require_free_names(store, existing, wanted.replace)
    replaced = [one for generations in existing.values() for one in generations]
    made: list[str] = []
    brought: list[RestoredIndex] = []
    own = RestoredSystemIndexes()
    try:
        for index, target in targets.items():
            number = max((one.number for one in existing[target]), default=0) + 1
            physical = store.names.physical(target, number)
            say(f"Restoring {index} of {backup.began_at} as {physical}.")
            restore_index(store, backup, backup.generations[index], physical, made)
            brought.append(_assign_generation(store.search, target, number, physical))
        if not wanted.documents_only:
            own = restore_system_indexes(store, backup, say, made, everything=not wanted.indexes)
        if store.names.jobs in made:
            _settle_restored_jobs(store, backup)
        _switch_aliases(store, brought, replaced, own)
    except BaseException:
        if not _is_switched(store, brought):
            discard_indexes(store, made)
        raise
    say("Searched from now on.")
    try:
        if store.names.jobs not in made:
            _settle_jobs(store, backup, targets.values())
        if not wanted.documents_only:
            merge_system_indexes(store, backup, own, brought)
    finally:
        discard_indexes(store, own.aside.values())
    documents = {one.generation.index: _count_states(store.search, one.generation.physical) for one in brought}
    _remove_replaced(store, existing, own, say)
    return RestoreResult([one.generation for one in brought], documents)


def _switch_aliases(
    store: BackupRepository,
    brought: Sequence[RestoredIndex],
    replaced: Sequence[Generation],
    own: RestoredSystemIndexes,
) -> None:
    try:
        store.search.send(publish_restored_call([one.generation for one in brought], replaced, own.aliases))
    except BackendUnavailable:
        # It may have been done, and only the answer is lost or late.
        if not _is_switched(store, brought):
            raise


def _is_switched(store: BackupRepository, brought: Sequence[RestoredIndex]) -> bool:
    """Whether aliases lead to what was brought. Raises BackendUnavailable where OpenSearch does not say."""
    active = {one.physical for one in read_active_generations(store.search.send(list_generations_call(store.names)))}
    return any(one.generation.physical in active for one in brought)


def _remove_replaced(
    store: BackupRepository,
    existing: Mapping[str, Sequence[Generation]],
    own: RestoredSystemIndexes,
    say: MessageReporter,
) -> None:
    """Removes what was replaced, and of our own indexes those without a name that an earlier restore left."""
    if any(existing.values()):
        say("Removing what was replaced.")
        time.sleep(ALIAS_CACHE_SECONDS)
        for index, replaced in existing.items():
            if replaced:
                store.search.send(delete_generations_call(replaced))
                _forget_reindex(store, index)
    if own.idle:
        used = read_system_indexes(store.search.send(system_indexes_call(store.names)), store.names)
        discard_indexes(store, (one for one in own.idle if one not in used.values()))


def try_restore(store: BackupRepository, backup: Backup, say: MessageReporter) -> Mapping[str, Mapping[str, int]]:
    """Restores each index of a backup where nobody sees it, counts documents and removes it again; our own too."""
    indexes = {physical: index for index, physical in backup.generations.items()}
    counts = {}
    for physical in [*sorted(indexes), *backup.own]:
        made: list[str] = []
        name = physical.replace(backup.prefix, store.names.prefix, 1).partition(".")[0]
        say(f"Restoring {physical} aside.")
        try:
            restore_index(store, backup, physical, f"{name}.try-{uuid4().hex[:8]}", made)
            if physical in indexes:
                counts[indexes[physical]] = _count_states(store.search, made[0])
        finally:
            discard_indexes(store, made)
    return counts


def _require_free_names(store: BackupRepository, existing: Mapping[str, Sequence[Generation]], replace: bool) -> None:
    taken = sorted(index for index, generations in existing.items() if generations)
    if taken and not replace:
        searched = {one.index for one in read_active_generations(store.search.send(list_generations_call(store.names)))}
        idle = [index for index in taken if index not in searched]
        left = f" (Not searched: {', '.join(idle)}. A restore that was cut off leaves such.)" if idle else ""
        raise Conflict(
            "restore_exists",
            f"There is {', '.join(taken)} already.{left} Restore it under another name (--index NAME --as OTHER), or "
            "have it replaced (--replace): what was written since the backup is lost then, so make one first.",
        )
    records = ReindexRecords(store.search, store.settings)
    for index in taken:
        record = records.load(index)
        if record is not None and record.step != "swapped":
            raise Conflict(
                "reindex_unfinished",
                f"{index} is being reindexed: finish that, or `sparsewell generations abort {index}`.",
            )


def _assign_generation(search: SyncSearchClient, index: str, number: int, physical: str) -> RestoredIndex:
    """The restored index as the generation that it is from now on.

    Its token is a new one: what is on its way to the generation that was backed up does not belong here.
    """
    try:
        (found,) = read_generations(search.send(generation_call(physical)))
    except ValueError as error:
        raise BackendUnavailable(
            "restore_failed",
            f"{physical} says of itself what this version of sparsewell does not know. Take a later one.",
        ) from error
    identity = {} if found.index == index else {"identity": uuid4().hex}
    told = {"index": index, "number": number, "physical": physical, "token": uuid4().hex[:12]}
    generation = found.model_copy(update=told | identity)
    search.send(record_generation_call(generation))
    return RestoredIndex(found, generation)


def _settle_restored_jobs(store: BackupRepository, backup: Backup) -> None:
    """So that no Idempotency-Key stands for documents that are not there: before anybody can send one again."""
    hours = max(SETTLED_JOB_MS, int(store.settings.idempotency_hours * 3_600_000))
    store.search.send(forget_outcomes_call(store.names.jobs, backup.began - hours))


def _settle_jobs(store: BackupRepository, backup: Backup, indexes: Collection[str]) -> None:
    """The same where jobs were there: after nobody writes to what was replaced any more."""
    with suppress(NotFound):
        store.search.send(forget_jobs_call(store.names.jobs, indexes, backup.began - SETTLED_JOB_MS))


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
