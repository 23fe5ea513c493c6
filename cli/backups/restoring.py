"""A backup becomes new generations: restored aside, made whole, and only then seen, all in one step.

So nothing is overwritten while it is not certain that the backup can be read, and no search meets half an index.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

from cli.backups.store import Say, Store, damaged
from services.errors import BackendUnavailable, Conflict, InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation, checked_index_name
from services.opensearch.backups import (
    Backup,
    appear_call,
    forget_jobs_call,
    forget_outcomes_call,
    health_call,
    identify_call,
    own_indexes_call,
    restore_call,
)
from services.opensearch.client import Call, SyncSearch
from services.opensearch.generations import (
    count_call,
    delete_call,
    every_generation_call,
    generation_call,
    read_counts,
    read_generations,
    refresh_call,
)
from services.opensearch.reindex_record import ReindexRecords

# An index whose shards nobody restores for so long will not be restored.
STUCK_SECONDS = 10.0
LOOK_SECONDS = 0.3
# What a request with a key takes at most between taking the key and storing its outcome.
SETTLED_MS = 3_600_000
# An API remembers for two seconds which generation is searched.
NOTICED_SECONDS = 3.0


@dataclass(frozen=True)
class Wanted:
    """What to restore of a backup. `indexes` empty: all of them, and our own; `under`: one of them, by another name."""

    indexes: tuple[str, ...] = ()
    under: str | None = None
    replace: bool = False

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
        return {self.indexes[0]: checked_index_name(self.under)}


@dataclass
class Own:
    """Of our own indexes: the names that came back, the alias of each new one, and what those replace."""

    restored: list[str] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Restored:
    """What came back: documents by state of each index, and which of our own indexes."""

    backup: Backup
    documents: Mapping[str, Mapping[str, int]]
    own: Sequence[str]
    removed: Sequence[str]


def restore(store: Store, backup: Backup, wanted: Wanted, say: Say) -> Restored:
    """Raises Conflict (`restore_exists`, `reindex_unfinished`) before anything is touched; BackendUnavailable
    (`restore_failed`, `backup_damaged`) when it is as it was.
    """
    targets = wanted.targets(backup)
    existing = {target: _generations(store, target) for target in targets.values()}
    _require_free(store, existing, wanted.replace)
    made: list[str] = []
    try:
        restored = []
        for index, target in targets.items():
            number = max((one.number for one in existing[target]), default=0) + 1
            physical = store.names.physical(target, number)
            say(f"Restoring {index} of {backup.began_at} as {physical}.")
            _bring(store, backup, backup.generations[index], physical, made)
            restored.append(_identified(store.search, target, number, physical))
        own = Own() if wanted.indexes else _own(store, backup, wanted.replace, say, made)
        replaced = [one for generations in existing.values() for one in generations]
        store.search.send(appear_call(restored, replaced, own.aliases, own.replaced))
    except BaseException:
        for physical in made:
            with suppress(SparsewellError):
                store.search.send(Call("DELETE", f"/{physical}"))
        raise
    _settle_jobs(store, backup, targets.values(), restored=store.names.jobs in made)
    documents = {one.index: _counts(store.search, one.physical) for one in restored}
    if replaced:
        say("Removing what was replaced.")
        time.sleep(NOTICED_SECONDS)
        store.search.send(delete_call(replaced))
        for index in existing:
            _forget_reindex(store, index)
    for physical in own.replaced:
        store.search.send(Call("DELETE", f"/{physical}"))
    return Restored(backup, documents, own.restored, [one.physical for one in replaced])


def try_out(store: Store, backup: Backup, say: Say) -> Mapping[str, Mapping[str, int]]:
    """Restores each index of a backup where nobody sees it, counts its documents and removes it again."""
    counts = {}
    for index, physical in sorted(backup.generations.items()):
        made: list[str] = []
        say(f"Restoring {index} aside.")
        try:
            _bring(store, backup, physical, f"{store.names.alias(index)}.try-{uuid4().hex[:8]}", made)
            counts[index] = _counts(store.search, made[0])
        finally:
            for name in made:
                with suppress(NotFound):
                    store.search.send(Call("DELETE", f"/{name}"))
    return counts


def _require_free(store: Store, existing: Mapping[str, Sequence[Generation]], replace: bool) -> None:
    taken = sorted(index for index, generations in existing.items() if generations)
    if taken and not replace:
        raise Conflict(
            "restore_exists",
            f"There is {', '.join(taken)} already. Restore it under another name (--index NAME --as OTHER), or have it "
            "replaced (--replace): what was written since the backup is lost then, so make one first.",
        )
    records = ReindexRecords(store.search, store.settings)
    for index in taken:
        record = records.load(index)
        if record is not None and record.step != "swapped":
            raise Conflict(
                "reindex_unfinished",
                f"{index} is being reindexed: finish that, or `sparsewell generations abort {index}`.",
            )


def _bring(store: Store, backup: Backup, physical: str, target: str, made: list[str]) -> None:
    """Restores one index under a name that nobody knows, until its primary shards are there."""
    try:
        store.search.send(restore_call(store.repository, backup.name, physical, target))
    except NotFound as error:
        raise damaged(backup, "index missing") from error
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


def _identified(search: SyncSearch, index: str, number: int, physical: str) -> Generation:
    """The restored index as the generation that it is from now on.

    Its token is a new one: what is on its way to the generation that was backed up does not belong here.
    """
    (found,) = read_generations(search.send(generation_call(physical)))
    identity = {} if found.index == index else {"identity": uuid4().hex}
    told = {"index": index, "number": number, "physical": physical, "token": uuid4().hex[:12]}
    generation = found.model_copy(update=told | identity)
    search.send(identify_call(generation))
    return generation


def _own(store: Store, backup: Backup, replace: bool, say: Say, made: list[str]) -> Own:
    """Restores our own indexes that are missing; with `replace` rules and learned queries as well.

    Keys and jobs that are there stay: a key that was revoked since stays revoked.
    """
    names, own = store.names, Own()
    there = store.search.send(own_indexes_call(names)) or {}
    for physical in backup.own:
        base, _, number = physical.replace(backup.prefix, names.prefix, 1).partition(".")
        present = [one for one in there if one.partition(".")[0] == base]
        if present and not (replace and base in (names.curation, names.queries)):
            say(f"{base} is kept as it is.")
            continue
        say(f"Restoring {base}.")
        newest = max((int(one.partition(".")[2]) for one in present), default=0)
        target = f"{base}.{newest + 1}" if number else base
        _bring(store, backup, physical, target, made)
        own.restored.append(base)
        own.replaced += present
        if number:
            own.aliases[target] = base
    return own


def _settle_jobs(store: Store, backup: Backup, indexes: Collection[str], *, restored: bool) -> None:
    """So that no Idempotency-Key stands for documents that are not there."""
    jobs = store.names.jobs
    with suppress(NotFound):
        if restored:
            hours = max(SETTLED_MS, int(store.settings.idempotency_hours * 3_600_000))
            store.search.send(forget_outcomes_call(jobs, backup.began - hours))
        else:
            store.search.send(forget_jobs_call(jobs, indexes, backup.began - SETTLED_MS))


def _forget_reindex(store: Store, index: str) -> None:
    records = ReindexRecords(store.search, store.settings)
    record = records.load(index)
    if record is not None:
        records.forget(record)


def _generations(store: Store, index: str) -> list[Generation]:
    return read_generations(store.search.send(every_generation_call(store.names, index)) or {})


def _counts(search: SyncSearch, physical: str) -> dict[str, int]:
    search.send(refresh_call(physical))
    return read_counts(search.send(count_call(physical)))
