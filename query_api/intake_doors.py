"""The two doors for documents, POST of many and PUT of one: what is asked of a request before anything is journalled.

In this order: the key, a place in flight, the index, the backlog, the body, and what the key stands for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from fastapi import Request
from starlette.requests import ClientDisconnect

from query_api import bodies
from query_api.idempotency import HEADER, checked_key, claim, settle
from query_api.ingestion import Ingestion
from query_api.long_reading import Read
from query_api.parts import AppState
from query_api.receiving import Receiving, disconnected
from services.documents import parse_document
from services.errors import InvalidInput, Overloaded, TooLarge, TooSlow
from services.index_spec import Generation
from services.opensearch.keys import digest
from services.telemetry.context import also
from services.web.problems import members

_ARRAY_ADVICE = "; send more in several requests or as application/x-ndjson"
_KEY_ADVICE = " with an Idempotency-Key, because all of it is read first; send several, each with a key of its own"

Items = Iterable[tuple[int, object]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with; `replayed`: as an earlier one with the same key was."""

    body: dict[str, Any]
    status: int = 202
    replayed: bool = False


async def post_documents(app: AppState, index: str, request: Request) -> Answer:
    """A JSON array, or NDJSON that is journalled while it arrives."""
    form = bodies.form(request)
    key = checked_key(request.headers.getlist(HEADER))
    settings = app.settings
    with app.in_flight.slot() as slot:
        generation = await app.generation(index)
        await app.backlog.admit(generation.encoder.name)
        receiving = Receiving(request, slot, settings.body_timeout)
        if form == "lines" and key is None:
            return Answer(await _stream(app, generation, receiving))
        raw = await bodies.whole(receiving, settings.max_body_bytes, _ARRAY_ADVICE if key is None else _KEY_ADVICE)
        items: Items
        if form == "lines":
            items = bodies.cut(raw, settings.document_limits.longest(generation.spec))
        else:
            items = list(enumerate(bodies.array(raw), 1))
        return await _execute(app, generation, form, items, (key, digest(form, raw)) if key else None)


async def put_document(app: AppState, index: str, document_id: str, request: Request) -> Answer:
    """One document. Raises the reason itself when it is refused."""
    if bodies.form(request) != "array":
        raise InvalidInput("not_an_object", "PUT takes one document as application/json.")
    key = checked_key(request.headers.getlist(HEADER))
    with app.in_flight.slot() as slot:
        generation = await app.generation(index)
        await app.backlog.admit(generation.encoder.name)
        receiving = Receiving(request, slot, app.settings.body_timeout)
        limits = app.settings.document_limits
        raw = await bodies.whole(receiving, limits.longest(generation.spec))
        item = bodies.value(raw)
        if isinstance(item, dict) and item.setdefault("id", document_id) != document_id:
            raise InvalidInput("id_mismatch", "The body's `id` is not the path's.")
        read = partial(parse_document, item, generation.spec, limits, len(raw))
        document = await app.long_reading.run(read, 0 if generation.spec.talk is None else len(raw))
        # the path says what is written, so it is part of the request
        same = digest("document", orjson.dumps(document_id) + raw) if key else ""
        return await _execute(app, generation, "array", [(1, Read(document, len(raw)))], (key, same) if key else None)


async def _stream(app: AppState, generation: Generation, receiving: Receiving) -> dict[str, Any]:
    """Journals lines while they arrive. What ends it half-way is said in the answer: what came before is kept."""
    settings, ingestion = app.settings, Ingestion(app, generation, "lines")
    # of a stream as much is in memory as is journalled at once, and a line
    longest = settings.document_limits.longest(generation.spec)
    kept = settings.journal_bytes + longest
    receiving.reserve(min(kept, kept if receiving.declared() is None else receiving.declared() or 0))
    try:
        async for chunk in bodies.lines(receiving, settings.max_stream_bytes, longest):
            for number, raw in chunk:
                await ingestion.take(number, raw)
            await app.backlog.admit(generation.encoder.name)
    except (TooLarge, TooSlow, Overloaded) as error:
        return await ingestion.finish(error)
    except ClientDisconnect:
        # Nobody reads the answer, but the job tells what was stored.
        return await ingestion.finish(disconnected())
    return await ingestion.finish()


async def _execute(
    app: AppState, generation: Generation, form: bodies.Form, items: Items, key: tuple[str, str] | None
) -> Answer:
    """Journals what is all there; with a key (and the digest of its request) once, whatever happens."""
    if key is None:
        ingestion = Ingestion(app, generation, form)
        for position, item in items:
            await ingestion.take(position, item)
        return Answer(await ingestion.finish())
    probe = Ingestion(app, generation, form)
    if not await _any_acceptable(probe, items):
        # Nothing of it can be written, so the key is left for the corrected request.
        return Answer(await probe.finish())
    claimed = await claim(app, generation, *key)
    if claimed.outcome is not None:
        also(job=claimed.record.job)  # (not that of the probe, which never was one)
        return Answer(claimed.outcome["body"], claimed.outcome["status"], replayed=True)
    ingestion = Ingestion(app, generation, form, claimed.record)
    for position, item in items:
        await ingestion.take(position, item)
    await ingestion.journal()
    try:
        answer = Answer(ingestion.answer())
    except InvalidInput as error:  # stale versions, all of them: final as well
        answer = Answer(members(error), error.status)
    outcome = {"status": answer.status, "body": answer.body}
    earlier = await settle(app, ingestion.job, outcome if ingestion.final else None)
    return answer if earlier is None else Answer(earlier["body"], earlier["status"], replayed=True)


async def _any_acceptable(probe: Ingestion, items: Items) -> bool:
    for position, item in items:
        if await probe.acceptable(position, item):
            return True
    return False
