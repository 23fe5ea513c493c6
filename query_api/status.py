"""What an operator asks first: queues, workers, and every generation of every index. Bounded work, whatever is away."""

import asyncio
import time
from collections import defaultdict
from dataclasses import asdict
from typing import Any, Final

from query_api.parts import AppState
from services.access.principal import EVERY
from services.contracts import INGEST_QUEUE, encode_queue
from services.errors import BackendUnavailable
from services.index_spec import Generation
from services.opensearch.generations import all_generations_call, read_generations
from services.opensearch.reindex_record import ReindexRecord, read_records, records_call
from services.opensearch.waiting import NOTHING, Waiting, read_waiting, waiting_call

LOOK_SECONDS: Final = 5.0


async def status(app: AppState) -> dict[str, Any]:
    """Raises BackendUnavailable when OpenSearch is away; of Redis it says so (`queues` and `workers` are null)."""
    names = app.names
    listed, counted, recorded = await asyncio.gather(
        app.search.send(all_generations_call(names)),
        app.search.send(waiting_call(names, LOOK_SECONDS)),
        app.search.send(records_call(names, LOOK_SECONDS)),
    )
    generations = [one for one in read_generations(listed) if app.who.may(one.index)]
    aliases = {one.physical: set(listed[one.physical].get("aliases", {})) for one in generations}
    waiting = read_waiting(counted)
    records = {record.index: record for record in read_records(recorded)}
    by_index: dict[str, list[Generation]] = defaultdict(list)
    for one in generations:
        by_index[one.index].append(one)
    encoders = sorted({one.encoder.name for one in generations if one.write_alias in aliases[one.physical]})
    queues, workers = await asyncio.to_thread(_redis, app, encoders)
    now = time.time() * 1000
    return {
        "queues": queues,
        "workers": workers,
        "indexes": [
            _index(index, of, aliases, waiting, records.get(index), now) for index, of in sorted(by_index.items())
        ],
    }


def _redis(app: AppState, encoders: list[str]) -> tuple[list[dict[str, Any]] | None, list[dict[str, Any]] | None]:
    now = time.time() * 1000
    try:
        found = []
        for name in (INGEST_QUEUE, *map(encode_queue, encoders)):
            messages, oldest = app.publisher.depth(name), app.publisher.oldest(name)
            found.append({"queue": name, "messages": messages, "oldest_seconds": _age(oldest, now)})
        everything = EVERY in app.who.indexes
        workers = [one for one in app.presence.workers() if everything or one.encoder in encoders]
        return found, [asdict(one) for one in workers]
    except BackendUnavailable:
        return None, None


def _age(moment: int | None, now: float) -> float | None:
    """Seconds; None where there is nothing, or nobody said when it came."""
    return round(max(0.0, now - moment) / 1000, 1) if moment else None


def _index(
    index: str,
    generations: list[Generation],
    aliases: dict[str, set[str]],
    waiting: dict[str, Waiting],
    record: ReindexRecord | None,
    now: float,
) -> dict[str, Any]:
    shown = []
    for one in generations:
        here = waiting.get(one.physical, NOTHING)
        written = one.write_alias in aliases[one.physical]
        state = "searched" if one.alias in aliases[one.physical] else "building" if written else "kept"
        shown.append(
            {
                "number": one.number,
                "state": state,
                "encoder": one.encoder.model_dump(),
                "created_at": one.created_at,
                # (what a retired generation had is not looked at)
                "pending": here.pending if written else None,
                "dead": here.dead if written else None,
                # (one that is being built has documents that came long ago)
                "oldest_pending_seconds": _age(here.oldest, now) if state == "searched" else None,
            }
        )
    return {"name": index, "generations": shown, "reindex": None if record is None else _progress(record, now)}


def _progress(record: ReindexRecord, now: float) -> dict[str, Any]:
    return {
        "step": record.step,
        "rollback": record.rollback,
        "from": record.source.number,
        "to": record.target.number,
        "carried": record.carried,
        "misfits": record.misfits,
        "started_seconds_ago": _age(record.started_at, now),
        "idle_seconds": _age(record.updated_at, now),
    }
