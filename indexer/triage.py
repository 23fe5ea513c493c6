"""Which of the documents that a message names are encoded, and how carefully. Pure.

Encoding one document may kill the process that does it (memory, a fault in the runtime), and a message whose worker
died comes back. So what comes back is approached with growing care, until the one that kills stands alone:

fresh      first delivery of a document that was only journalled: all in one run, nothing is written before
suspected  enqueued again by the sweeper, because its message was lost or its worker died, nobody knows: an attempt is
           counted for each before they are encoded in one run
alone      an attempt has begun before and did not end: an attempt is counted, then it is encoded by itself
exhausted  as many attempts as allowed have begun and none ended: dead

Nothing is counted for waiting in a queue, however long.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.opensearch.journal import PENDING, Stored
from services.talk.chaptering import is_talk


@dataclass
class Triage:
    """Documents by the care they need; what is encoded, deleted or dead already is in none of the lists."""

    fresh: list[Stored] = field(default_factory=list)
    suspected: list[Stored] = field(default_factory=list)
    alone: list[Stored] = field(default_factory=list)
    exhausted: list[Stored] = field(default_factory=list)


def begun(stored: Stored, redelivered: bool) -> int:
    """Attempts that have begun, as far as is known: a message that comes back was taken by a worker before."""
    return max(stored.attempts, 1 if redelivered else 0)


def attempts_allowed(stored: Stored, max_attempts: int) -> int:
    """Talk is attempted twice at least: the last time it goes without the engine that may have killed the worker."""
    return max(max_attempts, 2) if is_talk(stored.source) else max_attempts


def triage(documents: Iterable[Stored], *, redelivered: bool, max_attempts: int) -> Triage:
    """Sorts documents as read in real time. Those alone come in order of attempts, the least suspicious first."""
    result = Triage()
    for stored in documents:
        if stored.state != PENDING:
            continue
        attempts = begun(stored, redelivered)
        if attempts >= attempts_allowed(stored, max_attempts) or not stored.may_change:
            result.exhausted.append(stored)
        elif attempts:
            result.alone.append(stored)
        elif stored.transitions:
            result.suspected.append(stored)
        else:
            result.fresh.append(stored)
    result.alone.sort(key=lambda stored: stored.attempts)
    return result
