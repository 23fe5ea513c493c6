"""Run an API without some protections, for the controls of the fault tests: `api.py NAME ...`

own_writes        a repeated write that finds itself stored counts as superseded
query_tables      every index is searched with the configured encoder's table, even if another encoded it
blocks            a block of the whole index counts as a refusal of the document
judged_alone      an unreadable document makes the API refuse the whole request
streaming         a stream is read to its end before any document is journalled
bounded_lines     lines have no length limit
own_readiness     one index whose query table is missing makes the process unready
reuse             a new version of a document has no vectors until a worker has made them
lanes             all documents wait in one queue, first in, first out
"""

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import Request

import query_api.ingest.request_body
import services.documents.intake
import services.queue.lanes
import services.queue.messages
from cli.serve import serve_api
from query_api.index_cache import QueryTableCache
from query_api.readiness import ReadinessMonitor
from services.documents.document import Document
from services.documents.intake import Intake, Received
from services.errors import EncoderMismatch, SparsewellError
from services.opensearch import bulk
from services.opensearch.journal import LostAnswerCheck
from services.opensearch.vector_reuse import ReusedWrite


def own_writes() -> None:
    LostAnswerCheck.resolve = lambda self, answer: list(self.verdicts)  # type: ignore[method-assign]


def query_tables() -> None:
    QueryTableCache.of = lambda self, generation: self._tables[self.default.fingerprint]  # type: ignore[method-assign]
    QueryTableCache.serves = lambda self, fingerprint: True  # type: ignore[method-assign]


def blocks() -> None:
    judge = bulk.judge_item

    def judged(status: int, error: Any) -> bulk.Verdict | None:
        if bulk.error_type(error) == bulk.BLOCKED_ERROR:
            return bulk.Verdict(bulk.WriteOutcome.REFUSED, bulk.BLOCKED_ERROR)
        return judge(status, error)

    bulk.judge_item = judged


def judged_alone() -> None:
    def receive(self: Intake, position: int, parse: Callable[[], Document]) -> None:
        document = parse()
        self._ready[document.id] = Received(position, document)

    Intake.receive = receive  # type: ignore[method-assign]


def streaming() -> None:
    in_pieces = query_api.ingest.request_body.stream_lines

    async def at_once(request: Request, limit: int, most: int) -> AsyncIterator[list[tuple[int, bytes | None]]]:
        yield [line async for piece in in_pieces(request, limit, most) for line in piece]

    query_api.ingest.request_body.stream_lines = at_once


def bounded_lines() -> None:
    bounded = query_api.ingest.request_body.LineSplitter.__init__

    def unbounded(self: query_api.ingest.request_body.LineSplitter, max_line_bytes: int) -> None:
        bounded(self, max_line_bytes * 1000)

    query_api.ingest.request_body.LineSplitter.__init__ = unbounded  # type: ignore[method-assign]


def own_readiness() -> None:
    async def check_every_index(self: ReadinessMonitor) -> SparsewellError | None:
        survey = await self.survey_indexes()
        return EncoderMismatch("encoder_mismatch", "An index has another encoder.") if survey.unserved else None

    ReadinessMonitor.check_opensearch = check_every_index  # type: ignore[method-assign]


def reuse() -> None:
    services.documents.intake.reuse_vectors = lambda generation, write, stored: ReusedWrite(write, complete=False)


def lanes() -> None:
    only = services.queue.lanes.load_queue
    services.queue.messages.interactive_queue = lambda encoder: only(encoder, "")
    services.queue.messages.load_queue = lambda encoder, index: only(encoder, "")


PROTECTIONS = {
    one.__name__: one
    for one in (
        own_writes, query_tables, blocks, judged_alone, streaming, bounded_lines, own_readiness, reuse, lanes,
    )
}  # fmt: skip


def main(names: Sequence[str]) -> None:
    for name in names:
        PROTECTIONS[name]()
    serve_api(None, None)


if __name__ == "__main__":
    main(sys.argv[1:])
