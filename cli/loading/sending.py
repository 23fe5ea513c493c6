"""Sends what the sources hold through a door, batch by batch, and keeps the record of it."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from cli.loading.api_door import Sent
from cli.loading.display import Display
from cli.loading.record import LoadRecord
from cli.loading.refusal import Refusal
from cli.loading.source import Batch, Make, Place, Source, read_batches

MAX_BATCH_BYTES = 4 * 1024**2


class Door(Protocol):
    """Takes batches; lines are numbered over the whole load."""

    def send(self, batch: Batch) -> Sent: ...


def send_all(sources: Sequence[Source], record: LoadRecord, door: Door, make: Make, size: int, show: Display) -> None:
    """From the record's place to the end. A source's lines are numbered on from those of the sources before it."""
    total = sum(source.size for source in sources)
    show.begin("loading", total, first=record.sent)
    before = sum(source.size for source in sources[: record.place.part])
    for part, source in enumerate(sources[record.place.part :], record.place.part):
        began = source.identity()
        for batch in read_batches(source, record.place, make, size, MAX_BATCH_BYTES):
            _send(batch, record, door, sources)
            show.step(before + batch.read, total, record.sent)
        if not _unchanged(source, began):
            show.say(f"{source.name} changed while it was read: load it again to be sure of it.")
        record.starts.append(record.starts[part] + record.place.line)
        record.place = Place(part + 1)
        record.save()
        before += source.size


def _unchanged(source: Source, began: str) -> bool:
    try:
        return source.identity() == began
    except OSError:
        return False


def _send(batch: Batch, record: LoadRecord, door: Door, sources: Sequence[Source]) -> None:
    part = batch.end.part
    refusals = [replace(one, file=one.file or _name(sources, part)) for one in batch.refusals]
    if batch.lines:
        start = record.starts[part]
        sent = door.send(replace(batch, lines=[(start + number, line) for number, line in batch.lines]))
        record.jobs += [job for job in sent.jobs if job not in record.jobs]
        record.accepted += sent.accepted
        for one in sent.refusals:
            file = batch.files.get((one.line or 0) - start)
            refusals.append(replace(one, line=None, file=file) if file else located(one, record, sources))
    record.sent += len(batch.lines)
    record.refuse(refusals)
    record.place = batch.end
    record.save()


def located(refusal: Refusal, record: LoadRecord, sources: Sequence[Source]) -> Refusal:
    """A refusal whose line counts over the whole load, with its file and the line in there."""
    line = refusal.line or 1
    part = max(0, bisect_right(record.starts, line - 1) - 1)
    return replace(refusal, line=line - record.starts[part], file=_name(sources, part))


def _name(sources: Sequence[Source], part: int) -> str | None:
    return sources[part].name if len(sources) > 1 else None
