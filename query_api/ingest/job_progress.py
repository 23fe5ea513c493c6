"""Progress of ingestion jobs, and writes that wait until their documents can be found.

`GET /v1/jobs/{id}` counts a job's documents once. A write with `?wait=` counts them until searches see all of them
(`searchable`), or until none is pending as well (`encoded`). The documents are on disk before the wait begins, so its
end changes nothing: it is reported, and never an error (docs/decisions/0252).
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal

from query_api.app_state import AppState
from query_api.ingest.ingest import IngestResponse
from services.errors import NotFound, SparsewellError
from services.index_spec import Generation
from services.opensearch.generations import count_states_call, read_state_counts, refresh_call
from services.opensearch.jobs import count_invisible_documents, load_job_call, summarise_job

WaitFor = Literal["searchable", "encoded"]
DEFAULT_WAIT_SECONDS: Final = 30.0
MAX_WAIT_SECONDS: Final = 300.0
# OpenSearch refreshes an index every second by default. A forced refresh costs more, so it comes after that.
_REFRESH_AFTER_SECONDS: Final = 1.5
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 0.5


async def read_job(app: AppState, job_id: str) -> dict[str, Any]:
    """Return a job with its documents by state, as searches see them. Raises NotFound (`job_not_found`)."""
    try:
        record = (await app.search.send(load_job_call(app.names, job_id)))["_source"]
    except NotFound:
        record = {}
    # The record of an idempotency key is not a job.
    if "accepted" not in record or not app.principal.may(record["index"]):
        raise NotFound("job_not_found", f"There is no job {job_id[:80]!r}.") from None
    try:
        generation = await app.generation(record["index"])
        counts = await count_states(app, generation, job_id)
        if count_invisible_documents(record, counts):
            await app.search.send(refresh_call(generation.physical))
            counts = await count_states(app, generation, job_id)
    except NotFound:
        return summarise_job(job_id, record, None)
    return summarise_job(job_id, record, counts)


async def wait_for_documents(
    app: AppState, response: IngestResponse, wait: WaitFor | None, seconds: float
) -> IngestResponse:
    """Wait for the documents of an answer for at most `seconds`. Return it with the member `waited`.

    `waited` has `for`, `reached` and, as far as they could be counted, the `states` of the documents.
    """
    if wait is None or response.status >= 400:
        return response
    waited: dict[str, Any] = {"for": wait, "reached": False, "states": None}
    try:
        # A process has a limit of waits, because each one asks OpenSearch every second or more often.
        if not app.waits.locked():
            async with app.waits, asyncio.timeout(seconds):
                await _wait(app, response.body, waited)
    except (TimeoutError, SparsewellError):
        pass  # The documents are stored. The answer says that the wait was in vain.
    return replace(response, body=response.body | {"waited": waited})


async def _wait(app: AppState, answer: Mapping[str, Any], waited: dict[str, Any]) -> None:
    began, pause, refreshed = time.monotonic(), _FIRST_PAUSE_SECONDS, False
    job, record = answer["job"], {"accepted": len(answer["accepted"])}
    while not app.readiness.is_draining:  # The process ends in seconds, and the answer would be lost.
        generation = await app.generation(job["index"])
        counts = await count_states(app, generation, job["id"])
        invisible = count_invisible_documents(record, counts)
        waited["states"] = {state: counts[state] for state in ("pending", "encoded", "dead")}
        # After a refresh, documents that are missing were replaced or deleted by later writes.
        if (not invisible or refreshed) and (waited["for"] == "searchable" or not counts["pending"]):
            waited["reached"] = True
            return
        if invisible and not refreshed and time.monotonic() - began >= _REFRESH_AFTER_SECONDS:
            await app.search.send(refresh_call(generation.physical))
            refreshed = True
            continue
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


async def wait_for_refresh(app: AppState, index: str, seconds: float) -> bool:
    """Refresh an index, so that searches see a delete. Return False if that takes longer than `seconds` or fails."""
    try:
        async with asyncio.timeout(seconds):
            await app.search.send(refresh_call((await app.generation(index)).physical))
    except (TimeoutError, SparsewellError):
        return False
    return True


async def count_states(app: AppState, generation: Generation, job_id: str) -> dict[str, int]:
    """Count the documents of a job by state, as searches see them."""
    return read_state_counts(await app.search.send(count_states_call(generation.physical, job_id)))
