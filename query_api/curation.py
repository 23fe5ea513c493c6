"""The curation rules of an index: versions, changes and dry runs.

`change_curation` stores rules as the next version with a compare-and-swap; earlier versions are kept. `compare_rules`
searches with the current and with proposed rules and reports how the rankings differ, by rank-biased overlap (Webber,
Moffat and Zobel 2010). It writes nothing.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from query_api.app_state import AppState
from query_api.schemas.search_request import Mode, SearchRequest
from query_api.search.pipeline import search
from query_api.search.validation import limits_of
from services.curation.effects import check_rules
from services.curation.matching import CompiledRules
from services.curation.rules import Rules
from services.dates import format_timestamp, now_ms
from services.errors import BackendUnavailable, Conflict, InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation
from services.opensearch.curation_records import (
    MAX_KEPT_VERSIONS,
    CurationRecord,
    StoredCuration,
    archive_curation_call,
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
from services.opensearch.system_indexes import (
    create_system_index,
)
from services.text_encoding import replace_surrogates

ANY_VERSION = "*"
_NO_VERSION = 0
# Persistence of rank-biased overlap: with 0.9 the first ten places have 86 % of the weight.
RBO_PERSISTENCE = 0.9
# Limits of a dry run: an operator waits for it, and searches of users run in parallel.
MAX_CONCURRENT_QUERIES = 4
DRY_RUN_SECONDS = 30.0


def parse_if_match(value: str | None) -> int | str | None:
    """Return the version of an If-Match header, ANY_VERSION for `*`, None without a header.

    Raises InvalidInput (`bad_if_match`).
    """
    if value is None or value == ANY_VERSION:
        return value
    version = value.removeprefix('"').removesuffix('"')
    if not version.isascii() or not version.isdigit() or len(version) > 18:
        raise InvalidInput("bad_if_match", 'If-Match is the version that was read, as `"7"`, or `*`.')
    return int(version)


def format_etag(version: int) -> str:
    """Return the ETag of a version of the rules."""
    return f'"{version}"'


async def read_newest_curation(app: AppState, generation: Generation) -> StoredCuration | None:
    """Read the newest rules of an index from OpenSearch, without the cache."""
    stored = await _read_stored_curation(app, generation.index)
    return stored if stored is not None and stored.of(generation) else None


async def change_curation(
    app: AppState, generation: Generation, rules: Rules, note: str, match: int | str | None
) -> CurationRecord:
    """Store rules as the next version. Rules that equal the newest version change nothing.

    `match` is the version that the client read, ANY_VERSION, or None when there are no rules yet. Raises Conflict
    (`stale_curation`) when it is not the newest version. Raises InvalidInput and TooLarge for rules that do not fit
    this index.
    """
    await asyncio.to_thread(check_rules, rules, generation, app.tables.of(generation), limits_of(app.settings))
    stored = await _read_stored_curation(app, generation.index)
    before = stored.record if stored is not None and stored.of(generation) else None
    new_rules = rules.stored()
    if before is not None and before.rules == new_rules:
        return before
    version = _NO_VERSION if before is None else before.version
    if match not in (ANY_VERSION, version) and not (match is None and version == _NO_VERSION):
        raise curation_conflict(version)
    record = CurationRecord(generation.index, generation.lineage, version + 1, now_ms(), note, new_rules)
    if before is not None:
        await _archive_version(app, before)
    try:
        await _save_curation(app, record, stored)
    except Conflict:
        # The client library retries a write whose answer was lost, and the first try may have succeeded.
        newest = await read_newest_curation(app, generation)
        if newest is None or newest.record != record:
            raise curation_conflict(None if newest is None else newest.record.version) from None
    app.forget(generation.index)
    await _remove_old_versions(app, record)
    return record


async def read_curation_versions(app: AppState, generation: Generation) -> list[CurationRecord]:
    """Return the kept versions, the newest first. All but the newest come without their rules."""
    stored = await read_newest_curation(app, generation)
    if stored is None:
        return []
    numbers = kept_curation_versions(stored.record.version)
    if not numbers:
        return [stored.record]
    call = older_curations_call(app.names, generation.index, generation.lineage, numbers, rules=False)
    return [stored.record, *read_older_curations(await app.search.send(call))]


async def read_curation_version(app: AppState, generation: Generation, number: int) -> CurationRecord:
    """Return a version with its rules. Raises NotFound (`curation_version_not_found`)."""
    stored = await read_newest_curation(app, generation)
    if stored is not None:
        if number == stored.record.version:
            return stored.record
        if number in kept_curation_versions(stored.record.version):
            call = older_curations_call(app.names, generation.index, generation.lineage, [number], rules=True)
            if records := read_older_curations(await app.search.send(call)):
                return records[0]
    raise NotFound(
        "curation_version_not_found",
        f"The index {generation.index!r} has no version {number} of its rules, or it is no longer kept.",
    )


async def remove_curation(app: AppState, index: str) -> None:
    """Remove the rules of a deleted index. Errors are ignored: rules that stay apply to no other index."""
    with contextlib.suppress(SparsewellError):
        stored = await _read_stored_curation(app, index)
        if stored is not None:
            versions = kept_curation_versions(stored.record.version)
            await app.search.send(remove_curation_call(app.names, stored.record, versions, newest=True))


def describe_curation(index: str, record: CurationRecord | None) -> dict[str, Any]:
    """Format rules for an answer. An index without rules has version 0."""
    if record is None:
        return {"index": index, "version": _NO_VERSION, "at": None, "note": "", "rules": {}}
    return {
        "index": index,
        "version": record.version,
        "at": format_timestamp(record.at),
        "note": record.note,
        "rules": record.rules,
    }


async def _read_stored_curation(app: AppState, index: str) -> StoredCuration | None:
    return read_stored_curation(await app.search.send(newest_curation_call(app.names, index)))


async def _save_curation(app: AppState, record: CurationRecord, expected: StoredCuration | None) -> None:
    save_call = save_curation_call(app.names, record, expected)
    try:
        await app.search.send(save_call)
    except NotFound:  # The index of the rules does not exist yet.
        await create_system_index(app.search, make_curation_calls(app.names, app.settings.replicas))
        await app.search.send(save_call)


async def _archive_version(app: AppState, record: CurationRecord) -> None:
    # A conflict means that another process has archived this version and failed since, or is about to change it.
    with contextlib.suppress(Conflict):
        await app.search.send(archive_curation_call(app.names, record))


async def _remove_old_versions(app: AppState, record: CurationRecord) -> None:
    """Remove the version that is no longer kept. Errors are ignored: it takes little room and no answer shows it."""
    if (number := record.version - MAX_KEPT_VERSIONS - 1) > _NO_VERSION:
        with contextlib.suppress(SparsewellError):
            await app.search.send(remove_curation_call(app.names, record, [number], newest=False))


@dataclass(frozen=True, slots=True)
class RankingDifference:
    """The difference between two rankings. Places count from 1. `overlap` is rank-biased overlap; 1: equal rankings."""

    entered: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    moved: dict[str, tuple[int, int]] = field(default_factory=dict)
    overlap: float = 1.0

    @property
    def any(self) -> bool:
        """Return whether the rankings differ."""
        return bool(self.entered or self.left or self.moved)


async def compare_rules(
    app: AppState, index: str, proposed: CompiledRules, queries: Sequence[str], mode: Mode, size: int
) -> list[dict[str, Any]]:
    """Search each query with the current and with the proposed rules and return the differences.

    An invalid query gets its error in place of a difference. Raises BackendUnavailable (`dry_run_timeout`).
    """
    semaphore = asyncio.Semaphore(MAX_CONCURRENT_QUERIES)

    async def compare(query: str) -> dict[str, Any]:
        request = SearchRequest(query=query, mode=mode, size=size, passage=False, fields=[], did_you_mean=False)
        async with semaphore:
            try:
                before = await search(app, index, request)
                after = await search(app, index, request, proposed=proposed)
            except InvalidInput as error:
                printable = replace_surrogates(query)
                return {"query": printable, "changed": False, "error": {"code": error.code, "detail": error.detail}}
        old, new = ([hit["id"] for hit in answer["hits"]] for answer in (before, after))
        difference = compare_rankings(old, new)
        return {
            "query": query,
            "changed": difference.any,
            "overlap": round(difference.overlap, 4),
            "before": old,
            "after": new,
            "entered": [{"id": document_id, "place": place} for document_id, place in difference.entered.items()],
            "left": [{"id": document_id, "was": was} for document_id, was in difference.left.items()],
            "moved": [
                {"id": document_id, "was": was, "place": place}
                for document_id, (was, place) in difference.moved.items()
            ],
            "curation": after["curation"],
        }

    try:
        async with asyncio.timeout(DRY_RUN_SECONDS):
            async with asyncio.TaskGroup() as group:  # One error cancels all other queries.
                tasks = [group.create_task(compare(query)) for query in queries]
    except TimeoutError:
        raise BackendUnavailable(
            "dry_run_timeout", f"{len(queries)} queries took more than {DRY_RUN_SECONDS:.0f} seconds: send fewer."
        ) from None
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def compare_rankings(before: Sequence[str], after: Sequence[str]) -> RankingDifference:
    """Compare two rankings of document ids."""
    old = {document_id: place for place, document_id in enumerate(before, 1)}
    new = {document_id: place for place, document_id in enumerate(after, 1)}
    return RankingDifference(
        {document_id: place for document_id, place in new.items() if document_id not in old},
        {document_id: place for document_id, place in old.items() if document_id not in new},
        {
            document_id: (old[document_id], place)
            for document_id, place in new.items()
            if document_id in old and old[document_id] != place
        },
        rank_biased_overlap(before, after),
    )


def rank_biased_overlap(first: Sequence[str], second: Sequence[str], p: float = RBO_PERSISTENCE) -> float:
    """Return the rank-biased overlap of two lists without repeated entries, from 0 to 1.

    It is the sum over depths of Webber, Moffat and Zobel 2010 (equation 7), cut at the end of the longer list and
    divided by the value of two equal lists. It is not extrapolated, because these lists are complete: a list and its
    prefix differ. Two empty lists are equal.
    """
    depths = max(len(first), len(second))
    if not depths:
        return 1.0
    first_seen: set[str] = set()
    second_seen: set[str] = set()
    agreement = 0.0
    for depth in range(1, depths + 1):
        first_seen.update(first[depth - 1 : depth])
        second_seen.update(second[depth - 1 : depth])
        agreement += len(first_seen & second_seen) / depth * p ** (depth - 1)
    return agreement * (1 - p) / (1 - p**depths)
