"""Intake of documents: from a client's documents to journalled writes, with a verdict for each.

The API and the bulk queue use the same `Intake`. It accepts or rejects each document on its own.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.documents.document import MAX_CLIENT_VERSION, Document, VersionClock, client_version
from services.errors import BackendUnavailable, Conflict, InvalidInput, Overloaded, SparsewellError
from services.index_spec import Generation
from services.opensearch.bulk import OVERLOADED_CODE, Verdict, Write, WriteOutcome
from services.opensearch.jobs import MAX_KEPT_REJECTIONS, Rejection
from services.opensearch.journal import raw_write
from services.opensearch.stored_document import StoredDocument
from services.opensearch.vector_reuse import reuse_vectors
from services.telemetry.metrics import INGESTED_DOCUMENTS, VERSIONS_AHEAD

_REJECTIONS = {
    WriteOutcome.SUPERSEDED: ("stale_version", "A newer version of this document is stored already; it was kept."),
    WriteOutcome.REFUSED: ("refused_by_opensearch", "OpenSearch refused the document ({reason})."),
    WriteOutcome.NOT_STORED: ("not_stored", "The document could not be stored in time ({reason}); send it again."),
}


@dataclass(slots=True)
class Received:
    """A document without a verdict, and its last write."""

    position: int
    document: Document
    complete: bool = False


@dataclass
class Intake:
    """An ingestion: documents by position, their raw writes, and the decision to accept or reject each document.

    The higher version of two documents with one id wins, as it would in two requests. Without a version in both, the
    second one is rejected, because the order of the two writes would be undefined.
    `rejections` holds the first 1,000 of `rejected`, because a rejection takes a hundred times the memory of two bytes
    that are not a document. `not_stored` of them are temporary failures.
    """

    generation: Generation
    job: str
    clock: VersionClock
    lease_seconds: float
    version: int | None = None  # for documents without a version; None: take it from the clock
    first: bool = False  # no other execution of this request has stored a document with `version`
    overloaded: bool = False
    held: int = 0  # documents in memory: those without a verdict, with all their versions
    rejections: list[Rejection] = field(default_factory=list)
    rejected: int = 0
    not_stored: int = 0
    _seen: dict[str, int | None] = field(default_factory=dict)
    _ready: dict[str, list[Received]] = field(default_factory=dict)  # versions of a document, the highest first
    _accepted: dict[str, int] = field(default_factory=dict)  # id to position
    _written: list[str] = field(default_factory=list)

    def receive(self, position: int, parse: Callable[[], Document]) -> None:
        """Take the document at `position` (item or line, from 1).

        `parse` returns the document, or raises InvalidInput with the reason of the rejection.
        """
        document_id = None
        try:
            document = parse()
            document_id = document.id
            if document_id in self._seen:
                self._require_order(document)
        except InvalidInput as error:
            self._reject(position, document_id or error.extra.get("id"), error.code, error.detail)
            return
        # A lower version waits for the verdict on the higher one: it is written if OpenSearch refuses that.
        versions = self._ready.setdefault(document_id, [])
        versions.append(Received(position, document))
        versions.sort(key=lambda each: -1 if each.document.version is None else each.document.version, reverse=True)
        self._seen[document_id] = versions[0].document.version
        self.held += 1

    def _require_order(self, document: Document) -> None:
        """Check a further document with the same id. Raises InvalidInput (`duplicate_id`, `stale_version`)."""
        earlier, waiting = self._seen[document.id], self._ready.get(document.id, [])
        if earlier is None or document.version is None or document.version == earlier:
            raise InvalidInput(
                "duplicate_id", "An earlier document of this request has the same id; the first was kept."
            )
        is_repeated = document.version in [each.document.version for each in waiting]
        if document.version < earlier and (not waiting or is_repeated):
            raise InvalidInput("stale_version", f"This request has version {earlier} of the document; it was kept.")

    @property
    def accepted(self) -> list[str]:
        """The ids of the accepted documents, in the order of the request."""
        return sorted(self._accepted, key=self._accepted.__getitem__)

    @property
    def accepted_count(self) -> int:
        """Number of accepted documents."""
        return len(self._accepted)

    @property
    def waiting(self) -> int:
        """Number of received documents without a verdict."""
        return len(self._ready)

    @property
    def waiting_ids(self) -> list[str]:
        """The ids of the received documents without a verdict."""
        return list(self._ready)

    def writes(self, ids: Sequence[str], stored: Mapping[str, StoredDocument], moment: int) -> list[Write]:
        """Return the writes of documents without a verdict, by id. Then call `apply_verdicts`.

        `stored`: the stored versions of these documents by id. A write takes over their vectors, and a version of the
        server's clock is above theirs. `moment`: the version of the clock from before they were read. A delete between
        the read and the write then has the higher version, so no write brings back the vectors of a deleted text.
        """
        writes = []
        self._written = list(ids)
        for received in (self._ready[document_id][0] for document_id in ids):
            document, before = received.document, stored.get(received.document.id)
            version = self._server_version(before, moment) if document.version is None else document.version
            raw = raw_write(self.generation, document, self.job, version, self.lease_seconds)
            reused = reuse_vectors(self.generation, raw, before)
            received.complete = reused.complete
            writes.append(reused.write)
        return writes

    def apply_verdicts(self, verdicts: Sequence[Verdict], *, again: bool = False) -> dict[str, list[str]]:
        """Accept or reject the documents of the last `writes`.

        Return the ids that wait for an encoder by the physical generation that stored them. After a swap this is
        another generation than the one of the intake, and during a swap there are two. `again`: documents whose
        version came from the clock keep waiting if another write was faster; write them again.
        """
        pending_by_generation: dict[str, list[str]] = defaultdict(list)
        for document_id, verdict in zip(self._written, verdicts, strict=True):
            received, *lower = self._ready[document_id]
            document = received.document
            if again and verdict.outcome is WriteOutcome.SUPERSEDED and self._is_from_clock(document):
                continue
            del self._ready[document_id]
            self.held -= 1
            if verdict.outcome is WriteOutcome.REFUSED and lower:
                self._ready[document_id], self._seen[document_id] = lower, lower[0].document.version
            else:
                self._reject_lower(lower, document, verdict)
            if verdict.outcome is WriteOutcome.STORED:
                self._accepted.setdefault(document.id, received.position)
                if not received.complete:
                    pending_by_generation[verdict.physical].append(document.id)
                continue
            self._reject_by_verdict(received, verdict)
        self.rejections.sort(key=lambda rejection: rejection.position)
        return pending_by_generation

    def _reject_lower(self, lower: Sequence[Received], document: Document, verdict: Verdict) -> None:
        """Reject the lower versions of a document with a verdict."""
        self.held -= len(lower)
        for received in lower:
            if verdict.outcome is WriteOutcome.STORED:
                reason = f"This request has version {document.version} of the document; it was kept."
                self._reject(received.position, document.id, "stale_version", reason)
            else:
                self._reject_by_verdict(received, verdict)

    def _reject_by_verdict(self, received: Received, verdict: Verdict) -> None:
        self.overloaded |= verdict.outcome is WriteOutcome.NOT_STORED and verdict.reason == OVERLOADED_CODE
        self.not_stored += verdict.outcome is WriteOutcome.NOT_STORED
        code, reason = _REJECTIONS[verdict.outcome]
        self._reject(received.position, received.document.id, code, reason.format(reason=verdict.reason))

    def _reject(self, position: int, document_id: str | None, code: str, reason: str) -> None:
        self.rejected += 1
        if len(self.rejections) < MAX_KEPT_REJECTIONS:
            self.rejections.append(Rejection(position, document_id, code, reason))

    def _is_from_clock(self, document: Document) -> bool:
        return document.version is None and (self.version is None or self.first)

    def _server_version(self, before: StoredDocument | None, moment: int) -> int:
        above = -1 if before is None else client_version(before.external)
        if self.version is not None:
            if before is not None and before.source.get("job") == self.job:
                # Another execution of this request has stored the document, and may have raised its version.
                return above
            if above < self.version or not self.first:
                return self.version
        if self.clock.is_far_behind(above):
            VERSIONS_AHEAD.inc()
        if moment > above:
            return moment
        self.clock.next(above)  # The clock follows the host that is ahead.
        return min(above + 1, MAX_CLIENT_VERSION)


def stale_version() -> Conflict:
    """Return the error for a write or a delete with a lower version than the stored one."""
    return Conflict("stale_version", "A newer version of this document is stored; it was kept.")


def rejection_error(rejection: Rejection) -> SparsewellError:
    """Return the error for a request whose only document was rejected."""
    if rejection.code == "stale_version":
        return stale_version()
    return InvalidInput(rejection.code, rejection.reason)


def nothing_stored(*, overloaded: bool) -> SparsewellError:
    """Return the error for a request of which OpenSearch stored no document."""
    if overloaded:
        return Overloaded(OVERLOADED_CODE, "OpenSearch is overloaded and stored no document; send them again.")
    return BackendUnavailable(
        "opensearch_unavailable", "OpenSearch did not store the documents in time; send them again."
    )


def count_ingested(accepted: int, rejected: int) -> None:
    """Count the documents of one request or message in the metrics."""
    INGESTED_DOCUMENTS.labels("accepted").inc(accepted)
    INGESTED_DOCUMENTS.labels("rejected").inc(rejected)
