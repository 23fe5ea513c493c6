"""Makes a request with an `Idempotency-Key` one job, however often and however concurrently it comes."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson

from query_api.app_state import AppState
from services.errors import Conflict, InvalidInput, NotFound, Overloaded
from services.index_spec import Generation
from services.opensearch.jobs import (
    MAX_OUTCOME_BYTES,
    IdempotencyRecord,
    JobRecord,
    create_idempotency_key_call,
    idempotency_key_reused,
    idempotency_record_id,
    load_idempotency_key_call,
    load_outcome_call,
    read_idempotency_key,
    save_outcome_call,
    take_over_idempotency_key_call,
)
from services.opensearch.journal import now_ms
from services.retry import jitter

KEY_HEADER = "idempotency-key"
REPLAYED_HEADER = "idempotency-replayed"
MAX_KEY_CHARACTERS = 200
# Somebody who loses a compare-and-swap reads what won; losing this often in a row is no accident.
_MAX_ATTEMPTS = 30
# Between two rounds, so that executions of one request do not meet in each.
_CONTENTION_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """A key that stands for this very request: what to execute it with, and the answer if there is one already."""

    record: IdempotencyRecord
    outcome: Mapping[str, Any] | None = None


def parse_idempotency_key(given: Sequence[str]) -> str | None:
    """The key among a request's headers, None without one. Raises InvalidInput (`bad_idempotency_key`)."""
    if not given:
        return None
    if len(given) > 1 or not 1 <= len(given[0]) <= MAX_KEY_CHARACTERS or not all("!" <= c <= "~" for c in given[0]):
        raise InvalidInput(
            "bad_idempotency_key",
            f"An Idempotency-Key is one header of 1 to {MAX_KEY_CHARACTERS} visible ASCII characters.",
        )
    return given[0]


async def claim_key(app: AppState, generation: Generation, key: str, digest: str) -> IdempotencyClaim:
    """Takes the key for the request, or finds it taken by the same one. Raises Conflict (`idempotency_key_reused`)."""
    names, index = app.names, generation.index
    key_id = idempotency_record_id(generation, app.who.id, key)
    mine = IdempotencyRecord(digest, uuid4().hex, app.clock.next(), now_ms())
    taking = create_idempotency_key_call(names, key_id, index, mine)
    for _ in range(_MAX_ATTEMPTS):
        try:
            await app.search.send(taking)
        except Conflict:
            pass
        else:
            return IdempotencyClaim(mine)
        try:
            found = read_idempotency_key(await app.search.send(load_idempotency_key_call(names, key_id)))
        except NotFound:  # it was removed meanwhile
            taking = create_idempotency_key_call(names, key_id, index, mine)
            continue
        if found.expired(now_ms(), app.settings.idempotency_hours):
            taking = take_over_idempotency_key_call(names, key_id, index, mine, found)
            continue
        if found.record.digest != digest:
            raise idempotency_key_reused()
        return IdempotencyClaim(found.record, (await _read_job_record(app, found.record.job) or {}).get("outcome"))
    raise _key_contended()


async def settle_job(app: AppState, job: JobRecord, outcome: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Stores a finished job with its outcome, unless another execution did; then that one's outcome is returned.

    `outcome` None: something was not stored for a reason that may pass, so a repetition shall try again.
    """
    if outcome is not None and len(orjson.dumps(outcome)) > MAX_OUTCOME_BYTES:
        outcome = None
    seen: Mapping[str, Any] | None = None
    for _ in range(_MAX_ATTEMPTS):
        try:
            await app.search.send(save_outcome_call(app.names, job, outcome, seen))
        except Conflict:
            pass
        else:
            return None
        seen = await _find_job_record(app, job.id)
        stored: Mapping[str, Any] | None = (seen or {}).get("_source", {}).get("outcome")
        if stored is not None:
            return stored
        await asyncio.sleep(jitter(_CONTENTION_SECONDS))
    raise _key_contended()


async def _read_job_record(app: AppState, job_id: str) -> Mapping[str, Any] | None:
    found = await _find_job_record(app, job_id)
    return None if found is None else found["_source"]


async def _find_job_record(app: AppState, job_id: str) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = await app.search.send(load_outcome_call(app.names, job_id))
    except NotFound:
        return None
    return found


def _key_contended() -> Overloaded:
    return Overloaded(
        "idempotency_key_busy", "Too many requests use this Idempotency-Key at once; send this one again."
    )
