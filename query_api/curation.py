"""Reading and changing the rules of an index: each change is a version, made by a compare-and-swap.

What differs between two answers to one query: for an operator who asks before changing anything.

Which of some queries would be answered differently by other rules. Nothing is written.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from query_api.app_state import AppState
from query_api.schemas.search_request import Mode, SearchRequest
from query_api.search.pipeline import search
from query_api.search.validation import limits_of
from services.curation.effects import check_rules
from services.curation.matching import CompiledRules
from services.curation.rules import Rules
from services.errors import BackendUnavailable, Conflict, InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation
from services.opensearch.journal import now_ms
from services.opensearch.system_indexes import (
    MAX_KEPT_VERSIONS,
    CurationRecord,
    StoredCuration,
    archive_curation_call,
    create_system_index,
    curation_conflict,
    kept_curation_versions,
    make_curation_calls,
    newest_curation_call,
    older_curations_call,
    read_older_curations,
    read_stored_curation,
    remove_curation_call,
    save_curation_call,
)

# Persistence of rank-biased overlap: with .9 the first ten places have 86 % of the weight.
RBO_PERSISTENCE = 0.9


@dataclass(frozen=True, slots=True)
class RankingDifference:
    """Places are counted from 1. `overlap` is rank-biased overlap, 1 for the same list."""

    entered: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    moved: dict[str, tuple[int, int]] = field(default_factory=dict)
    overlap: float = 1.0

    @property
    def any(self) -> bool:
        return bool(self.entered or self.left or self.moved)


def compare_rankings(before: Sequence[str], after: Sequence[str]) -> RankingDifference:
    """What came in, what went, what has another place than before, and how much of the two lists is the same."""
    old = {one: place for place, one in enumerate(before, 1)}
    new = {one: place for place, one in enumerate(after, 1)}
    return RankingDifference(
        {one: place for one, place in new.items() if one not in old},
        {one: place for one, place in old.items() if one not in new},
        {one: (old[one], place) for one, place in new.items() if one in old and old[one] != place},
        rank_biased_overlap(before, after),
    )


def rank_biased_overlap(first: Sequence[str], second: Sequence[str], p: float = RBO_PERSISTENCE) -> float:
    """How much two lists without repeated entries agree, the first places counting most: from 0 to 1.

    The sum over depths of Webber, Moffat and Zobel 2010 (equation 7), cut where the longer list ends and divided by
    what two lists that are the same would have there. Not extrapolated: these lists have ended, no more is to come, so
    a list and its beginning differ. Two empty lists are the same.
    """
    depths = max(len(first), len(second))
    if not depths:
        return 1.0
    one: set[str] = set()
    other: set[str] = set()
    agreed = 0.0
    for depth in range(1, depths + 1):
        one.update(first[depth - 1 : depth])
        other.update(second[depth - 1 : depth])
        agreed += len(one & other) / depth * p ** (depth - 1)
    return agreed * (1 - p) / (1 - p**depths)


# An operator waits for it; searches of users go on beside it.
MAX_CONCURRENT_QUERIES = 4
DRY_RUN_SECONDS = 30.0


async def compare_rules(
    app: AppState, index: str, proposed: CompiledRules, queries: Sequence[str], mode: Mode, size: int
) -> list[dict[str, Any]]:
    """For each query what is answered now and what would be, and the difference; a bad query says what is wrong."""
    places = asyncio.Semaphore(MAX_CONCURRENT_QUERIES)

    async def compared(query: str) -> dict[str, Any]:
        request = SearchRequest(query=query, mode=mode, size=size, passage=False, fields=[], did_you_mean=False)
        async with places:
            try:
                before = await search(app, index, request)
                after = await search(app, index, request, proposed=proposed)
            except InvalidInput as error:
                said = query.encode(errors="replace").decode()  # (half of a surrogate pair has no place in an answer)
                return {"query": said, "changed": False, "error": {"code": error.code, "detail": error.detail}}
        old, new = ([hit["id"] for hit in answer["hits"]] for answer in (before, after))
        found = compare_rankings(old, new)
        return {
            "query": query,
            "changed": found.any,
            "overlap": round(found.overlap, 4),
            "before": old,
            "after": new,
            "entered": [{"id": one, "place": place} for one, place in found.entered.items()],
            "left": [{"id": one, "was": was} for one, was in found.left.items()],
            "moved": [{"id": one, "was": was, "place": place} for one, (was, place) in found.moved.items()],
            "curation": after["curation"],
        }

    try:
        async with asyncio.timeout(DRY_RUN_SECONDS):
            async with asyncio.TaskGroup() as group:  # (one error ends all, and none goes on unseen)
                tasks = [group.create_task(compared(query)) for query in queries]
    except TimeoutError:
        raise BackendUnavailable(
            "dry_run_timeout", f"{len(queries)} queries took more than {DRY_RUN_SECONDS:.0f} seconds: send fewer."
        ) from None
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


ANY_VERSION = "*"
_NO_VERSION = 0


def parse_if_match(given: str | None) -> int | str | None:
    """The version of an If-Match header, ANY for `*`, None without one. Raises InvalidInput (`bad_if_match`)."""
    if given is None or given == ANY_VERSION:
        return given
    bare = given.removeprefix('"').removesuffix('"')
    if not bare.isascii() or not bare.isdigit() or len(bare) > 18:
        raise InvalidInput("bad_if_match", 'If-Match is the version that was read, as `"7"`, or `*`.')
    return int(bare)


def format_etag(version: int) -> str:
    return f'"{version}"'


async def read_newest_curation(app: AppState, generation: Generation) -> StoredCuration | None:
    """What is stored of this index now, whatever this process remembers."""
    found = await _read_stored_curation(app, generation.index)
    return found if found is not None and found.of(generation) else None


async def change_curation(
    app: AppState, generation: Generation, rules: Rules, note: str, match: int | str | None
) -> CurationRecord:
    """Stores rules as the next version. Rules that are the newest already change nothing, however often they are sent.

    Raises Conflict (`stale_curation`) unless `match` is the version that is the newest; without it, unless there is
    none. Raises InvalidInput and TooLarge for rules that this index cannot have.
    """
    await asyncio.to_thread(check_rules, rules, generation, app.tables.of(generation), limits_of(app.settings))
    stored = await _read_stored_curation(app, generation.index)
    before = stored.record if stored is not None and stored.of(generation) else None
    wanted = rules.stored()
    if before is not None and before.rules == wanted:
        return before
    version = _NO_VERSION if before is None else before.version
    if match not in (ANY_VERSION, version) and not (match is None and version == _NO_VERSION):
        raise curation_conflict(version)
    record = CurationRecord(generation.index, generation.lineage, version + 1, now_ms(), note, wanted)
    if before is not None:
        await _keep_version(app, before)
    try:
        await _save_curation(app, record, stored)
    except Conflict:
        # The answer to the first try may have been lost on its way, and the client library tries again.
        now = await read_newest_curation(app, generation)
        if now is None or now.record != record:
            raise curation_conflict(None if now is None else now.record.version) from None
    app.forget(generation.index)
    await _remove_old_versions(app, record)
    return record


async def read_curation_versions(app: AppState, generation: Generation) -> list[CurationRecord]:
    """The versions that are kept, the newest first, the older ones without their rules."""
    stored = await read_newest_curation(app, generation)
    if stored is None:
        return []
    numbers = kept_curation_versions(stored.record.version)
    if not numbers:
        return [stored.record]
    call = older_curations_call(app.names, generation.index, generation.lineage, numbers, rules=False)
    return [stored.record, *read_older_curations(await app.search.send(call))]


async def read_curation_version(app: AppState, generation: Generation, number: int) -> CurationRecord:
    """One version with its rules. Raises NotFound (`curation_version_not_found`)."""
    stored = await read_newest_curation(app, generation)
    if stored is not None:
        if number == stored.record.version:
            return stored.record
        if number in kept_curation_versions(stored.record.version):
            call = older_curations_call(app.names, generation.index, generation.lineage, [number], rules=True)
            if found := read_older_curations(await app.search.send(call)):
                return found[0]
    raise NotFound(
        "curation_version_not_found", f"The index {generation.index!r} has no version {number} of its rules (any more)."
    )


async def remove_curation(app: AppState, index: str) -> None:
    """Removes the rules of an index that is gone. Without insisting: what stays counts for no other index."""
    with contextlib.suppress(SparsewellError):
        stored = await _read_stored_curation(app, index)
        if stored is not None:
            old = kept_curation_versions(stored.record.version)
            await app.search.send(remove_curation_call(app.names, stored.record, old, newest=True))


def describe_curation(index: str, record: CurationRecord | None) -> dict[str, Any]:
    """For answers; version 0 is that of an index without rules."""
    if record is None:
        return {"index": index, "version": _NO_VERSION, "at": None, "note": "", "rules": {}}
    return {
        "index": index,
        "version": record.version,
        "at": datetime.fromtimestamp(record.at / 1000, UTC).isoformat(timespec="milliseconds"),
        "note": record.note,
        "rules": record.rules,
    }


async def _read_stored_curation(app: AppState, index: str) -> StoredCuration | None:
    return read_stored_curation(await app.search.send(newest_curation_call(app.names, index)))


async def _save_curation(app: AppState, record: CurationRecord, seen: StoredCuration | None) -> None:
    saving = save_curation_call(app.names, record, seen)
    try:
        await app.search.send(saving)
    except NotFound:  # the very first rules of all
        await create_system_index(app.search, make_curation_calls(app.names, app.settings.replicas))
        await app.search.send(saving)


async def _keep_version(app: AppState, record: CurationRecord) -> None:
    try:
        await app.search.send(archive_curation_call(app.names, record))
    except Conflict:
        return  # by somebody who changed it and failed, or is about to


async def _remove_old_versions(app: AppState, record: CurationRecord) -> None:
    """Without insisting: what stays takes a little room and is shown to nobody."""
    if (number := record.version - MAX_KEPT_VERSIONS - 1) > _NO_VERSION:
        with contextlib.suppress(SparsewellError):
            await app.search.send(remove_curation_call(app.names, record, [number], newest=False))
