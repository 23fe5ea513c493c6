"""From what a client sent to what is journalled: each document is judged on its own, for every door alike."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.documents.document import Document, VersionClock
from services.errors import InvalidInput
from services.index_spec import Generation
from services.opensearch.bulk import OVERLOADED_CODE, Verdict, Write, WriteOutcome
from services.opensearch.jobs import Rejection
from services.opensearch.journal import raw_write

_REASONS = {
    WriteOutcome.SUPERSEDED: ("stale_version", "A newer version of this document is stored already; it was kept."),
    WriteOutcome.REFUSED: ("refused_by_opensearch", "OpenSearch refused the document ({reason})."),
    WriteOutcome.NOT_STORED: ("not_stored", "The document could not be stored in time ({reason}); send it again."),
}


@dataclass
class Intake:
    """One ingestion: documents come in by position, leave as writes, and end accepted or rejected.

    The same id twice in one ingestion is refused the second time, because which of them wins would be a matter of
    chance; the first one is kept.
    """

    generation: Generation
    job: str
    clock: VersionClock
    lease_seconds: float
    version: int | None = None  # of documents that bring none; None: the clock's
    overloaded: bool = False
    accepted: list[str] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _ready: list[tuple[int, Document]] = field(default_factory=list)

    def receive(self, position: int, parse: Callable[[], Document]) -> None:
        """Takes the document at `position` (item or line, from 1).

        `parse` returns it or raises InvalidInput with the reason to refuse it.
        """
        document_id = None
        try:
            document = parse()
            document_id = document.id
            if document_id in self._seen:
                raise InvalidInput("duplicate_id", "The same id came earlier in this request; the first one was kept.")
        except InvalidInput as error:
            self.rejections.append(Rejection(position, document_id or error.extra.get("id"), error.code, error.detail))
            return
        self._seen.add(document_id)
        self._ready.append((position, document))

    @property
    def waiting(self) -> int:
        """Documents received and not yet taken as writes."""
        return len(self._ready)

    def writes(self) -> list[Write]:
        """The raw writes of what was received since `settle`; ask once, then settle."""
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

    def settle(self, verdicts: Sequence[Verdict]) -> dict[str, list[str]]:
        """Takes the verdicts on the last `writes`; returns the ids that were accepted by them.

        They come by the generation (OpenSearch's name of it) that took them: after a swap it is not ours, and in the
        moment of one there are two.
        """
        stored: dict[str, list[str]] = defaultdict(list)
        for (position, document), verdict in zip(self._ready, verdicts, strict=True):
            if verdict.outcome is WriteOutcome.STORED:
                stored[verdict.physical].append(document.id)
                self.accepted.append(document.id)
                continue
            self.overloaded |= verdict.outcome is WriteOutcome.NOT_STORED and verdict.reason == OVERLOADED_CODE
            code, reason = _REASONS[verdict.outcome]
            self.rejections.append(Rejection(position, document.id, code, reason.format(reason=verdict.reason)))
        self._ready.clear()
        return stored

    def _version(self) -> int:
        return self.clock.next() if self.version is None else self.version
