"""A write whose answer was lost is sent again and finds itself stored: that is success, not "superseded"."""

from collections.abc import Sequence

from services.opensearch.bulk import Outcome, Verdict, Write
from services.opensearch.journal import Stored


def doubtful(writes: Sequence[Write], verdicts: Sequence[Verdict]) -> list[Write]:
    """The raw writes and tombstones that were superseded, perhaps by themselves."""
    return [one for one, verdict in zip(writes, verdicts, strict=True) if verdict.outcome is Outcome.SUPERSEDED]


def forgiven(writes: Sequence[Write], verdicts: Sequence[Verdict], found: Sequence[Stored]) -> list[Verdict]:
    """The verdicts, with STORED for doubtful writes whose own version and job are what `found` holds.

    `found` is what is stored under the ids of the doubtful writes, read in real time.
    """
    held = {(stored.id, *_identity(stored.source)): stored.physical for stored in found}
    return [
        Verdict(Outcome.STORED, physical=held[one.id, *_identity(one.source)])
        if verdict.outcome is Outcome.SUPERSEDED and (one.id, *_identity(one.source)) in held
        else verdict
        for one, verdict in zip(writes, verdicts, strict=True)
    ]


def _identity(source: dict[str, object]) -> tuple[object, object]:
    return source.get("version"), source.get("job")
