"""The task `sparsewell.encode.v1`: reads journalled documents, encodes them, writes them back.

Which of the documents that a message names are encoded, and how carefully. Pure.

Encoding one document may kill the process that does it (memory, a fault in the runtime), and a message whose worker
died comes back. So what comes back is approached with growing care, until the one that kills stands alone:

fresh      first delivery of a document that was only journalled: all in one run, nothing is written before
suspected  enqueued again by the sweeper, because its message was lost or its worker died, nobody knows: an attempt is
           counted for each before they are encoded in one run
alone      an attempt has begun before and did not end: an attempt is counted, then it is encoded by itself
exhausted  as many attempts as allowed have begun and none ended: dead

Nothing is counted for waiting in a queue, however long.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace

from indexer.encoding import (
    EncodedDocument,
    EncodingFailure,
    WindowedDocument,
    cut_talk_windows,
    cut_windows,
    encode_dense_vectors,
    encode_long_document,
    encode_run,
    group_into_runs,
    make_chaptering,
)
from indexer.runtime import Runtime
from services.errors import BackendUnavailable, EncoderMismatch, InvalidInput, NotFound, Overloaded
from services.index_spec import Generation
from services.opensearch.bulk import Write, WriteOutcome, write_bulk
from services.opensearch.journal import (
    PENDING,
    StoredDocument,
    attempt_write,
    dead_write,
    encoded_write,
    get_documents_call,
    read_stored_documents,
)
from services.opensearch.stored_document import window_limit_refusal
from services.queue.messages import EncodeMessage
from services.retry import retry
from services.talk.model import is_talk
from services.telemetry.metrics import DEAD_LETTERS, FAILED_ENQUEUES


@dataclass
class Triage:
    """Documents by the care they need; what is encoded, deleted or dead already is in none of the lists."""

    fresh: list[StoredDocument] = field(default_factory=list)
    suspected: list[StoredDocument] = field(default_factory=list)
    alone: list[StoredDocument] = field(default_factory=list)
    exhausted: list[StoredDocument] = field(default_factory=list)


def attempts_begun(stored: StoredDocument, redelivered: bool) -> int:
    """Attempts that have begun, as far as is known: a message that comes back was taken by a worker before."""
    return max(stored.attempts, 1 if redelivered else 0)


def attempts_allowed(stored: StoredDocument, max_attempts: int) -> int:
    """Talk is attempted twice at least: the last time it goes without the engine that may have killed the worker."""
    return max(max_attempts, 2) if is_talk(stored.source) else max_attempts


def triage_documents(documents: Iterable[StoredDocument], *, redelivered: bool, max_attempts: int) -> Triage:
    """Sorts documents as read in real time. Those alone come in order of attempts, the least suspicious first."""
    result = Triage()
    for stored in documents:
        if stored.state != PENDING:
            continue
        attempts = attempts_begun(stored, redelivered)
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


log = logging.getLogger(__name__)

# Characters from which on a talk may take longer than a lease: two hours, which take a generator a minute on two cores.
LONG_TALK_CHARACTERS = 100_000
ATTEMPTS_EXHAUSTED = (
    "attempts_exhausted",
    "Its encoding was begun {attempts} times and never ended: it seems to need more memory or time than a worker has.",
)


@dataclass
class EncodeRun:
    """One message on its way. `counts` says what became of its documents."""

    runtime: Runtime
    generation: Generation
    redelivered: bool
    began: float = field(default_factory=time.monotonic)
    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def run(self, ids: Sequence[str]) -> list[str]:
        """Encodes what is pending among the documents; returns the ids that the time did not suffice for."""
        found = read_stored_documents(self._read(ids))
        sorted_ = triage_documents(found, redelivered=self.redelivered, max_attempts=self.runtime.settings.max_attempts)
        self._bury(
            [EncodingFailure(s, ATTEMPTS_EXHAUSTED[0], ATTEMPTS_EXHAUSTED[1].format(attempts=attempts_begun(s, self.redelivered)), final=True)
             for s in sorted_.exhausted]
        )  # fmt: skip
        left = self._together(sorted_.fresh)
        left += self._together(self._count_attempts(sorted_.suspected)) if self.in_time else sorted_.suspected
        for at, stored in enumerate(sorted_.alone):
            if not self.in_time:
                left += sorted_.alone[at:]
                break
            left += self._together(self._count_attempts([stored]))
        self.counts["skipped"] = len(ids) - sum(map(len, vars(sorted_).values()))
        self.counts["left"] = len(left)
        return [stored.id for stored in left]

    @property
    def in_time(self) -> bool:
        """Whether the task has time for another run. The first always has: a message must not travel on for ever."""
        return not self.runs or time.monotonic() - self.began < self.runtime.worker.task_budget

    def _read(self, ids: Sequence[str]) -> dict[str, object]:
        call = get_documents_call(self.generation.physical, ids)
        answer: dict[str, object] = retry(lambda: self.runtime.search.send(call), self.runtime.worker.patience)
        return answer

    def _count_attempts(self, documents: Sequence[StoredDocument]) -> list[StoredDocument]:
        """Writes down that an attempt begins; the documents as they are stored now, without those that changed.

        Talk has a lease as long as a task may run: at the end of a shorter one a second worker would begin with it.
        """
        lease, limit = self.runtime.settings.lease_seconds, self.runtime.worker.task_limit
        writes = [
            attempt_write(
                self.generation,
                stored,
                attempts_begun(stored, self.redelivered) + 1,
                max(lease, limit) if is_talk(stored.source) else lease,
            )
            for stored in documents
        ]
        return [
            StoredDocument(one.id, one.version, one.source)
            for one, outcome in zip(writes, self._write(writes), strict=True)
            if outcome is WriteOutcome.STORED
        ]

    def _cut(self, stored: StoredDocument) -> WindowedDocument | EncodingFailure:
        encoder, window, settings = self.runtime.encoder, self.generation.window, self.generation.spec.talk
        if settings is not None and is_talk(stored.source):
            gave_up = stored.attempts >= attempts_allowed(stored, self.runtime.settings.max_attempts)
            seconds = self.runtime.worker.chapter_time
            chaptering = make_chaptering(stored, settings, self.runtime.maker, seconds, gave_up=gave_up)
            self.counts["without chapters"] += chaptering.error is not None
            one = cut_talk_windows(encoder, window, stored, chaptering, settings)
        else:
            one = cut_windows(encoder, window, stored)
        refusal = (
            window_limit_refusal(len(one.windows), self.generation.spec) if isinstance(one, WindowedDocument) else None
        )
        return one if refusal is None else EncodingFailure(stored, *refusal, final=True)

    def _together(self, documents: Sequence[StoredDocument]) -> list[StoredDocument]:
        """Encodes and writes documents; returns those that there was no time for. Talk comes last, one by one: making
        chapters may take as long as everything else.
        """
        left = self._in_runs([stored for stored in documents if not is_talk(stored.source)])
        for stored in documents:
            if not is_talk(stored.source):
                continue
            if self.in_time:
                self.runs += 1
                self._talk(stored)
            else:
                left.append(stored)
        return left

    def _talk(self, stored: StoredDocument) -> None:
        if not stored.attempts and len(stored.source["text"]) > LONG_TALK_CHARACTERS:
            counted = self._count_attempts([stored])
            if not counted:  # changed meanwhile
                self.counts["superseded"] += 1
                return
            (stored,) = counted
        one = self._cut(stored)
        outcome = encode_long_document(self.runtime.encoder, one) if isinstance(one, WindowedDocument) else one
        if isinstance(outcome, EncodingFailure):
            self._bury([outcome])
        else:
            self._bury(self._account([outcome], self._write(self._encoded_writes([outcome]))))

    def _in_runs(self, documents: Sequence[StoredDocument]) -> list[StoredDocument]:
        cuts: list[WindowedDocument] = []
        failures: list[EncodingFailure] = []
        for stored in documents:
            one = self._cut(stored)
            if isinstance(one, WindowedDocument):
                cuts.append(one)
            else:
                failures.append(one)
        left: list[StoredDocument] = []
        # The writer is idle most of the time; it lets the processor compute while OpenSearch writes.
        writing: list[tuple[list[EncodedDocument], Future[list[WriteOutcome]]]] = []
        with ThreadPoolExecutor(1, "writer") as writer:
            for group in group_into_runs(cuts):
                if not self.in_time:
                    left += [one.stored for one in group]
                    continue
                self.runs += 1
                outcomes = encode_run(self.runtime.encoder, group)
                failures += [outcome for outcome in outcomes if isinstance(outcome, EncodingFailure)]
                encoded = [outcome for outcome in outcomes if isinstance(outcome, EncodedDocument)]
                writes = self._encoded_writes(encoded)
                writing.append((encoded, writer.submit(copy_context().run, self._write, writes)))
        for encoded, written in writing:
            failures += self._account(encoded, written.result())
        self._bury(failures)
        return left

    def _encoded_writes(self, encoded: Sequence[EncodedDocument]) -> list[Write]:
        """With dense vectors, where the generation declares them."""
        model, identity = self.runtime.dense(self.generation), self.generation.dense
        if model is None or identity is None:
            return [
                encoded_write(self.generation, one.stored, one.windows, chaptering=one.chaptering) for one in encoded
            ]
        dense = encode_dense_vectors(model, identity, [one.stored for one in encoded])
        self.counts["without dense vectors"] += sum(bool(outcome.error) for outcome in dense)
        return [
            encoded_write(self.generation, one.stored, one.windows, outcome, one.chaptering)
            for one, outcome in zip(encoded, dense, strict=True)
        ]

    def _account(self, encoded: Sequence[EncodedDocument], outcomes: Sequence[WriteOutcome]) -> list[EncodingFailure]:
        """Counts what became of encoded documents; those that OpenSearch will never take come back as failed, and are
        counted when they are buried.
        """
        refused = []
        for one, outcome in zip(encoded, outcomes, strict=True):
            if outcome is WriteOutcome.REFUSED:
                reason = "OpenSearch refused the encoded document; its log says why."
                refused.append(EncodingFailure(one.stored, "refused_by_opensearch", reason, final=True))
            else:
                self.counts["encoded" if outcome is WriteOutcome.STORED else outcome.value] += 1
        return refused

    def _bury(self, failures: Sequence[EncodingFailure]) -> None:
        """Marks documents dead with the reason, or counts the attempt when another one may go better.

        A document is counted as what it is by then: one that was written meanwhile, or could not be marked, is no dead
        letter yet.
        """
        settings = self.runtime.settings
        writes = []
        endings = []
        for failed in failures:
            stored = failed.stored
            # A document that was suspected has had this attempt counted; a fresh one has not.
            attempts = max(stored.attempts, attempts_begun(stored, self.redelivered), 1)
            dead = failed.final or attempts >= attempts_allowed(stored, settings.max_attempts) or not stored.may_change
            endings.append("dead" if dead else "failed")
            log.warning("document %r of %s: %s", stored.id, self.generation.physical, failed.code)
            if dead:
                counted = replace(stored, source=stored.source | {"attempts": attempts})
                writes.append(dead_write(self.generation, counted, failed.code, failed.reason))
            else:
                error = (failed.code, failed.reason)
                writes.append(attempt_write(self.generation, stored, attempts, settings.lease_seconds, error))
        for failed, ending, outcome in zip(failures, endings, self._write(writes), strict=True):
            self.counts[ending if outcome is WriteOutcome.STORED else outcome.value] += 1
            if ending == "dead" and outcome is WriteOutcome.STORED:
                DEAD_LETTERS.labels(failed.code).inc()

    def _write(self, writes: Sequence[Write]) -> list[WriteOutcome]:
        settings = self.runtime.settings
        if not writes:
            return []
        verdicts = write_bulk(self.runtime.search, writes, settings.journal_bytes, self.runtime.worker.patience)
        return [verdict.outcome for verdict in verdicts]


def run_encode(runtime: Runtime, message: EncodeMessage, *, redelivered: bool) -> dict[str, int]:
    """Handles one message; what cannot be done now stays pending, and the sweeper brings it again."""
    try:
        run, left = _encode_message(runtime, message, redelivered=redelivered)
    except EncoderMismatch as error:
        if runtime.new_trouble(str(error)):
            log.error("documents stay pending: %s", error)
        return {"mismatch": len(message.ids)}
    except (NotFound, InvalidInput) as error:
        log.warning("%s", error)
        return {"gone": len(message.ids)}
    except (BackendUnavailable, Overloaded) as error:
        log.warning("%d documents of %r stay pending: %s", len(message.ids), message.index, error)
        return {"postponed": len(message.ids)}
    if left:
        _send_on(runtime, run.generation, message.model_copy(update={"ids": tuple(left)}))
    return {name: count for name, count in run.counts.items() if count}


def _encode_message(runtime: Runtime, message: EncodeMessage, *, redelivered: bool) -> tuple[EncodeRun, list[str]]:
    """The run, and the ids that its time did not suffice for."""
    generation = retry(lambda: runtime.generation(message.index, message.generation), runtime.worker.patience)
    runtime.check_encoder(generation)
    runtime.dense(generation)
    run = EncodeRun(runtime, generation, redelivered)
    try:
        return run, run.run(message.ids)
    except NotFound:
        # It was retired by a swap, or what we remember under this number was deleted and made again meanwhile.
        runtime.forget(message.index, message.generation)
        if runtime.generation(message.index, message.generation).token == generation.token:
            raise
        return _encode_message(runtime, message, redelivered=redelivered)


def _send_on(runtime: Runtime, generation: Generation, rest: EncodeMessage) -> None:
    try:
        runtime.publisher.encode(generation.encoder.name, rest)
    except (BackendUnavailable, Overloaded) as error:
        log.warning("%d documents of %r stay pending: %s", len(rest.ids), rest.index, error)
        FAILED_ENQUEUES.inc()
