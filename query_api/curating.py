"""Reading and changing the rules of an index: each change is a version, made by a compare-and-swap."""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

from query_api.parts import AppState
from query_api.search.selection import limits_of
from services.curation.checking import checked_rules
from services.curation.rules import Rules
from services.errors import Conflict, InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation
from services.opensearch import own_index
from services.opensearch.curation_store import (
    KEPT_VERSIONS,
    CurationRecord,
    StoredCuration,
    changed_meanwhile,
    keep_call,
    kept,
    make_calls,
    newest_call,
    older_call,
    read_newest,
    read_older,
    remove_call,
    save_call,
)
from services.opensearch.journal import now_ms

ANY = "*"
_NONE = 0


def checked_match(given: str | None) -> int | str | None:
    """The version of an If-Match header, ANY for `*`, None without one. Raises InvalidInput (`bad_if_match`)."""
    if given is None or given == ANY:
        return given
    bare = given.removeprefix('"').removesuffix('"')
    if not bare.isascii() or not bare.isdigit() or len(bare) > 18:
        raise InvalidInput("bad_if_match", 'If-Match is the version that was read, as `"7"`, or `*`.')
    return int(bare)


def etag(version: int) -> str:
    return f'"{version}"'


async def newest(app: AppState, generation: Generation) -> StoredCuration | None:
    """What is stored of this index now, whatever this process remembers."""
    found = await _stored(app, generation.index)
    return found if found is not None and found.of(generation) else None


async def change(
    app: AppState, generation: Generation, rules: Rules, note: str, match: int | str | None
) -> CurationRecord:
    """Stores rules as the next version. Rules that are the newest already change nothing, however often they are sent.

    Raises Conflict (`stale_curation`) unless `match` is the version that is the newest; without it, unless there is
    none. Raises InvalidInput and TooLarge for rules that this index cannot have.
    """
    await asyncio.to_thread(checked_rules, rules, generation, app.tables.of(generation), limits_of(app.settings))
    stored = await _stored(app, generation.index)
    before = stored.record if stored is not None and stored.of(generation) else None
    wanted = rules.stored()
    if before is not None and before.rules == wanted:
        return before
    version = _NONE if before is None else before.version
    if match not in (ANY, version) and not (match is None and version == _NONE):
        raise changed_meanwhile(version)
    record = CurationRecord(generation.index, generation.lineage, version + 1, now_ms(), note, wanted)
    if before is not None:
        await _keep(app, before)
    try:
        await _save(app, record, stored)
    except Conflict:
        # The answer to the first try may have been lost on its way, and the client library tries again.
        now = await newest(app, generation)
        if now is None or now.record != record:
            raise changed_meanwhile(None if now is None else now.record.version) from None
    app.forget(generation.index)
    await _remove_old(app, record)
    return record


async def versions(app: AppState, generation: Generation) -> list[CurationRecord]:
    """The versions that are kept, the newest first, the older ones without their rules."""
    stored = await newest(app, generation)
    if stored is None:
        return []
    numbers = kept(stored.record.version)
    if not numbers:
        return [stored.record]
    call = older_call(app.names, generation.index, generation.lineage, numbers, rules=False)
    return [stored.record, *read_older(await app.search.send(call))]


async def version(app: AppState, generation: Generation, number: int) -> CurationRecord:
    """One version with its rules. Raises NotFound (`curation_version_not_found`)."""
    stored = await newest(app, generation)
    if stored is not None:
        if number == stored.record.version:
            return stored.record
        if number in kept(stored.record.version):
            call = older_call(app.names, generation.index, generation.lineage, [number], rules=True)
            if found := read_older(await app.search.send(call)):
                return found[0]
    raise NotFound(
        "curation_version_not_found", f"The index {generation.index!r} has no version {number} of its rules (any more)."
    )


async def remove(app: AppState, index: str) -> None:
    """Removes the rules of an index that is gone. Without insisting: what stays counts for no other index."""
    with contextlib.suppress(SparsewellError):
        stored = await _stored(app, index)
        if stored is not None:
            old = kept(stored.record.version)
            await app.search.send(remove_call(app.names, stored.record, old, newest=True))


def shown(index: str, record: CurationRecord | None) -> dict[str, Any]:
    """For answers; version 0 is that of an index without rules."""
    if record is None:
        return {"index": index, "version": _NONE, "at": None, "note": "", "rules": {}}
    return {
        "index": index,
        "version": record.version,
        "at": datetime.fromtimestamp(record.at / 1000, UTC).isoformat(timespec="milliseconds"),
        "note": record.note,
        "rules": record.rules,
    }


async def _stored(app: AppState, index: str) -> StoredCuration | None:
    return read_newest(await app.search.send(newest_call(app.names, index)))


async def _save(app: AppState, record: CurationRecord, seen: StoredCuration | None) -> None:
    saving = save_call(app.names, record, seen)
    try:
        await app.search.send(saving)
    except NotFound:  # the very first rules of all
        await own_index.make(app.search, make_calls(app.names, app.settings.replicas))
        await app.search.send(saving)


async def _keep(app: AppState, record: CurationRecord) -> None:
    try:
        await app.search.send(keep_call(app.names, record))
    except Conflict:
        return  # by somebody who changed it and failed, or is about to


async def _remove_old(app: AppState, record: CurationRecord) -> None:
    """Without insisting: what stays takes a little room and is shown to nobody."""
    if (number := record.version - KEPT_VERSIONS - 1) > _NONE:
        with contextlib.suppress(SparsewellError):
            await app.search.send(remove_call(app.names, record, [number], newest=False))
