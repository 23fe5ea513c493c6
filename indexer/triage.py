"""Triage: which documents of a message are encoded together, and which alone.

A document may kill the process that encodes it (memory, a fault in the ONNX runtime), and the message of a dead worker
is redelivered. `triage_documents` therefore isolates the documents of a message step by step:

first_attempt  first delivery of a journalled document: encoded with others in one run, without a write before
requeued       enqueued again by the sweeper, because its message was lost or its worker died: an attempt is counted
               for each before they are encoded in one run
isolated       an earlier attempt began and did not end: an attempt is counted, then the document is encoded by itself
exhausted      the allowed number of attempts began and none ended: dead

Waiting in a queue does not count as an attempt.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.documents.document import is_talk
from services.opensearch.journal import PENDING
from services.opensearch.stored_document import StoredDocument

ATTEMPTS_EXHAUSTED = (
    "attempts_exhausted",
    "Its encoding began {attempts} times and never ended: it seems to need more memory or time than a worker has.",
)
TRANSITIONS_EXHAUSTED = (
    "given_up",
    "It was enqueued a thousand times and never encoded; the logs of the workers have the reasons.",
)


@dataclass
class Triage:
    """The pending documents of a message by the isolation that they need. Other documents are in none of the lists."""

    first_attempt: list[StoredDocument] = field(default_factory=list)
    requeued: list[StoredDocument] = field(default_factory=list)
    isolated: list[StoredDocument] = field(default_factory=list)
    exhausted: list[StoredDocument] = field(default_factory=list)


def triage_documents(documents: Iterable[StoredDocument], *, redelivered: bool, max_attempts: int) -> Triage:
    """Sort documents, as read in real time, by the isolation that they need. `isolated` is in order of attempts."""
    result = Triage()
    for stored in documents:
        if stored.state != PENDING:
            continue
        attempts = attempts_begun(stored, redelivered)
        if attempts >= attempts_allowed(stored, max_attempts) or not stored.may_change:
            result.exhausted.append(stored)
        elif attempts:
            result.isolated.append(stored)
        elif stored.transitions:
            result.requeued.append(stored)
        else:
            result.first_attempt.append(stored)
    result.isolated.sort(key=lambda stored: stored.attempts)
    return result


def attempts_begun(stored: StoredDocument, redelivered: bool) -> int:
    """Return the known number of attempts that began. A redelivered message was taken by a worker before."""
    return max(stored.attempts, 1 if redelivered else 0)


def attempts_allowed(stored: StoredDocument, max_attempts: int) -> int:
    """Return the limit of attempts. A talk gets at least two: the last one skips the chapter engine."""
    return max(max_attempts, 2) if is_talk(stored.source) else max_attempts


def exhaustion_reason(stored: StoredDocument, max_attempts: int) -> tuple[str, str] | None:
    """Return the code and the reason why another attempt is useless, else None.

    Only attempts that a worker began count. Waiting and lost messages do not.
    """
    if stored.attempts >= attempts_allowed(stored, max_attempts):
        error = stored.source.get("error")
        if error:
            return str(error["code"]), str(error["reason"])
        return ATTEMPTS_EXHAUSTED[0], ATTEMPTS_EXHAUSTED[1].format(attempts=stored.attempts)
    return None if stored.may_change else TRANSITIONS_EXHAUSTED
