"""Intake of documents: from a client's documents to journalled writes, with a verdict for each.

The API and the bulk queue use the same `Intake`. It accepts or rejects each document on its own.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.documents.document import Document, VersionClock
from services.errors import InvalidInput
from services.index_spec import Generation
from services.opensearch.bulk import OVERLOADED_CODE, Verdict, Write, WriteOutcome
from services.opensearch.jobs import MAX_KEPT_REJECTIONS, Rejection
from services.opensearch.journal import raw_write
from services.telemetry.metrics import INGESTED_DOCUMENTS

_REJECTIONS = {
    WriteOutcome.SUPERSEDED: ("stale_version", "A newer version of this document is stored already; it was kept."),
    WriteOutcome.REFUSED: ("refused_by_opensearch", "OpenSearch refused the document ({reason})."),
    WriteOutcome.NOT_STORED: ("not_stored", "The document could not be stored in time ({reason}); send it again."),
}


@dataclass
class Intake:
    """An ingestion: documents by position, their raw writes, and the decision to accept or reject each document.

    It rejects the second document with the same id, because the order of the two writes would be undefined.
    `rejections` holds the first 1,000 of `rejected`, because a rejection takes a hundred times the memory of two bytes
    that are no document. `not_stored` of them are temporary failures.
    """

    generation: Generation
    job: str
    clock: VersionClock
    lease_seconds: float
    version: int | None = None  # for documents without a version; None: take it from the clock
    overloaded: bool = False
    accepted: list[str] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    rejected: int = 0
    not_stored: int = 0
    _seen: set[str] = field(default_factory=set)
    _ready: list[tuple[int, Document]] = field(default_factory=list)

    def receive(self, position: int, parse: Callable[[], Document]) -> None:
        """Take the document at `position` (item or line, from 1).

        `parse` returns the document, or raises InvalidInput with the reason of the rejection.
        """
        document_id = None
        try:
            document = parse()
            document_id = document.id
            if document_id in self._seen:
                raise InvalidInput(
                    "duplicate_id", "An earlier document of this request has the same id; the first was kept."
                )
        except InvalidInput as error:
            self._reject(position, document_id or error.extra.get("id"), error.code, error.detail)
            return
        self._seen.add(document_id)
        self._ready.append((position, document))

    @property
    def waiting(self) -> int:
        """Number of received documents without a verdict."""
        return len(self._ready)

    def writes(self) -> list[Write]:
        """Return the raw writes of the documents without a verdict. Call it once, then `apply_verdicts`."""
        return [
            raw_write(
                self.generation,
                document,
                self.job,
                self._version() if document.version is None else document.version,
                self.lease_seconds,
            )
            for _, document in self._ready
        ]

    def apply_verdicts(self, verdicts: Sequence[Verdict]) -> dict[str, list[str]]:
        """Accept or reject the documents of the last `writes`.

        Return the accepted ids by the physical generation that stored them.
        After a swap this is another generation than the one of the intake, and during a swap there are two.
        """
        accepted_by_generation: dict[str, list[str]] = defaultdict(list)
        for (position, document), verdict in zip(self._ready, verdicts, strict=True):
            if verdict.outcome is WriteOutcome.STORED:
                accepted_by_generation[verdict.physical].append(document.id)
                self.accepted.append(document.id)
                continue
            self.overloaded |= verdict.outcome is WriteOutcome.NOT_STORED and verdict.reason == OVERLOADED_CODE
            self.not_stored += verdict.outcome is WriteOutcome.NOT_STORED
            code, reason = _REJECTIONS[verdict.outcome]
            self._reject(position, document.id, code, reason.format(reason=verdict.reason))
        self._ready.clear()
        return accepted_by_generation

    def _reject(self, position: int, document_id: str | None, code: str, reason: str) -> None:
        self.rejected += 1
        if len(self.rejections) < MAX_KEPT_REJECTIONS:
            self.rejections.append(Rejection(position, document_id, code, reason))

    def _version(self) -> int:
        return self.clock.next() if self.version is None else self.version


def count_ingested(accepted: int, rejected: int) -> None:
    """Count the documents of one request or message in the metrics."""
    INGESTED_DOCUMENTS.labels("accepted").inc(accepted)
    INGESTED_DOCUMENTS.labels("rejected").inc(rejected)
