"""Our own indexes in a restore: whole where there is none, else what they hold of the indexes that are restored.

Rules and learned queries belong to an index, so they come with it; those of other indexes are left as they are.
Keys and jobs that are there stay: a key that was revoked since stays revoked.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from uuid import uuid4

from cli.backups.bringing import bring
from cli.backups.store import Say, Store
from services.errors import Conflict
from services.index_spec import Generation
from services.opensearch import curation_store, query_store
from services.opensearch.backups import SLOW_SECONDS, Backup, own_indexes_call, read_own
from services.opensearch.curation_store import CurationRecord, StoredCuration, kept, read_newest, read_older
from services.opensearch.journal import now_ms
from services.opensearch.own_index import MakeCalls, make_now

# Somebody may change the rules of an index just then.
ATTEMPTS = 5


@dataclass(frozen=True)
class Brought:
    """An index as it was when it was backed up, and as it is from now on."""

    source: Generation
    generation: Generation


@dataclass
class Own:
    """What came of our own indexes.

    `aliases`: by new index the name that it gets; `aside`: by name a copy of which parts are taken; `idle`: indexes
    that were found without their name, as a restore leaves them that was cut off.
    """

    aliases: dict[str, str] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)
    idle: list[str] = field(default_factory=list)


def bring_own(store: Store, backup: Backup, say: Say, made: list[str], *, everything: bool) -> Own:
    """Restores those that are missing; of rules and learned queries that are there, or wanted of some indexes, a copy.

    The jobs come last: they have their name at once.
    """
    names, own = store.names, Own()
    there = store.search.send(own_indexes_call(names)) or {}
    used = read_own(there, names)
    own.idle = [one for one in there if one not in used.values() and ".try-" not in one]
    for physical in sorted(backup.own, key=lambda one: (not one.partition(".")[2], one)):
        name, _, number = physical.replace(backup.prefix, names.prefix, 1).partition(".")
        if name in used or not everything:
            if name in (names.curation, names.queries):
                own.aside[name] = f"{name}.aside-{uuid4().hex[:8]}"
                bring(store, backup, physical, own.aside[name], made)
            elif everything:
                say(f"{name} is kept as it is.")
            continue
        say(f"Restoring {name}.")
        taken = [one.rpartition(".")[2] for one in own.idle if one.startswith(f"{name}.")]
        target = f"{name}.{max((int(one) for one in taken if one.isdigit()), default=0) + 1}" if number else name
        bring(store, backup, physical, target, made)
        if number:
            own.aliases[target] = name
    return own


def carry(store: Store, backup: Backup, own: Own, brought: Sequence[Brought]) -> None:
    """Gives the restored indexes the rules and learned queries of the backup, where these did not come whole."""
    names = store.names
    for one in brought:
        if names.curation not in own.aliases.values():
            _carry_rules(store, backup, own.aside.get(names.curation), one)
        if names.queries not in own.aliases.values():
            _carry_queries(store, own.aside.get(names.queries), one)


def _carry_rules(store: Store, backup: Backup, aside: str | None, one: Brought) -> None:
    """As one more version where the index has rules, so that what was changed since can be looked up."""
    target = one.generation
    then = None if aside is None else _of(one.source, _newest(store, one.source.index, aside))
    for attempt in range(1, ATTEMPTS + 1):
        stored = _newest(store, target.index)
        now = _of(target, stored)
        if now is not None:
            rules = {} if then is None else then.rules
            if rules == now.rules:
                return
            note = f"as in the backup {backup.name}"
            record, older = replace(now, version=now.version + 1, at=now_ms(), note=note, rules=rules), [now]
        elif then is not None and aside is not None:
            record, older = _under(target, then), [_under(target, version) for version in _older(store, then, aside)]
        else:
            return
        try:
            return _save_rules(store, record, stored, older)
        except Conflict:
            if attempt == ATTEMPTS:
                raise


def _save_rules(
    store: Store, record: CurationRecord, seen: StoredCuration | None, older: Sequence[CurationRecord]
) -> None:
    _ensure(store, store.names.curation, curation_store.make_calls(store.names, store.settings.replicas))
    for version in older:
        with suppress(Conflict):
            store.search.send(curation_store.keep_call(store.names, version))
    store.search.send(curation_store.save_call(store.names, record, seen))


def _carry_queries(store: Store, aside: str | None, one: Brought) -> None:
    names = store.names
    store.search.send(query_store.refresh_call(names))
    store.search.send(query_store.remove_call(names, one.generation.index))
    if aside is not None:
        _ensure(store, names.queries, query_store.make_calls(names, store.settings.replicas))
        store.search.send(query_store.copy_call(names, aside, one.source, one.generation, SLOW_SECONDS))


def _ensure(store: Store, name: str, making: MakeCalls) -> None:
    if name not in read_own(store.search.send(own_indexes_call(store.names)), store.names):
        make_now(store.search, making)


def _newest(store: Store, index: str, kept_in: str = "") -> StoredCuration | None:
    return read_newest(store.search.send(curation_store.newest_call(store.names, index, kept_in=kept_in)))


def _of(generation: Generation, stored: StoredCuration | None) -> CurationRecord | None:
    return stored.record if stored is not None and stored.of(generation) else None


def _under(generation: Generation, record: CurationRecord) -> CurationRecord:
    return replace(record, index=generation.index, lineage=generation.lineage)


def _older(store: Store, record: CurationRecord, kept_in: str) -> list[CurationRecord]:
    numbers = kept(record.version)
    if not numbers:
        return []
    call = curation_store.older_call(store.names, record.index, record.lineage, numbers, rules=True, kept_in=kept_in)
    return read_older(store.search.send(call))
