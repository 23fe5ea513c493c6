"""The task `sparsewell.encode.v1`: read journalled documents, encode them, write them back.

`indexer.triage` decides which documents are encoded together and which alone. A task of a load makes way for
interactive writes (`services.queue.lanes`), and a text with many windows may pass through several tasks
(`indexer.partial_encoding`).
"""

import logging
import time
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import cached_property

from indexer.encoding import (
    MAX_RUN_WINDOWS,
    EncodedDocument,
    EncodingFailure,
    WindowedDocument,
    cut_talk_windows,
    cut_windows,
    encode_dense_vectors,
    encode_run,
    group_into_runs,
    make_chaptering,
    store_dense_vectors,
)
from indexer.partial_encoding import PartialEncodings, encode_long_document
from indexer.runtime import Runtime
from indexer.triage import ATTEMPTS_EXHAUSTED, Triage, attempts_allowed, attempts_begun, triage_documents
from services.dates import now_ms
from services.documents.document import is_talk
from services.errors import BackendUnavailable, EncoderMismatch, InvalidInput, NotFound, Overloaded
from services.index_spec import Generation, TalkSettings
from services.opensearch.bulk import Write, WriteOutcome, write_bulk
from services.opensearch.journal import (
    DenseOutcome,
    attempt_write,
    dead_write,
    encoded_write,
    get_documents_call,
    read_stored_documents,
    requeue_write,
)
from services.opensearch.stored_document import StoredDocument, window_limit_refusal
from services.queue.lanes import interactive_queue
from services.queue.messages import EncodeMessage
from services.retry import retry
from services.talk.model import Chaptering
from services.telemetry.metrics import DEAD_LETTERS, FAILED_ENQUEUES

log = logging.getLogger(__name__)

# A long talk may take longer than a lease: on two cores, a chapter generator needs a minute for two hours of talk.
LONG_TALK_CHARACTERS = 100_000


@dataclass
class EncodeRun:
    """The handling of one message. `counts` has the outcomes of its documents, `runs` the runs of the encoder."""

    runtime: Runtime
    generation: Generation
    redelivered: bool
    loading: bool = False  # a message of a load: it makes way for interactive writes
    continued: frozenset[str] = frozenset()  # documents of which an earlier task encoded a part
    kept: set[str] = field(default_factory=set)  # documents of which this task keeps a part
    began: float = field(default_factory=time.monotonic)
    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def run(self, ids: Sequence[str]) -> list[str]:
        """Encode the pending documents. Return the ids of the documents that the task had no time for."""
        documents = read_stored_documents(self._read(ids))
        triage = triage_documents(
            documents, redelivered=self.redelivered, max_attempts=self.runtime.settings.max_attempts
        )
        self._record_failures([self._exhausted(stored) for stored in triage.exhausted])
        self._resume(triage)
        left = self._encode(triage.first_attempt)
        left += self._encode(self._count_attempts(triage.requeued)) if self.in_time else triage.requeued
        for at, stored in enumerate(triage.isolated):
            if not self.in_time:
                left += triage.isolated[at:]
                break
            left += self._encode(self._count_attempts([stored]))
        self.counts["skipped"] = len(ids) - sum(map(len, vars(triage).values()))
        self.counts["left"] = len(left)
        return [stored.id for stored in left]

    @property
    def in_time(self) -> bool:
        """Tell whether the task has time for another run. The first run always fits, so each message makes progress."""
        if not self.runs:
            return True
        return time.monotonic() - self.began < self.runtime.worker.task_budget and not self._is_in_the_way()

    def _is_in_the_way(self) -> bool:
        """Tell whether an interactive write waits while this task loads documents."""
        if not self.loading:
            return False
        with suppress(BackendUnavailable, Overloaded):
            return self.runtime.publisher.depth(interactive_queue(self.generation.encoder.name)) > 0
        return False

    @cached_property
    def _partials(self) -> PartialEncodings:
        return PartialEncodings(self.runtime.publisher, self.generation)

    def _resume(self, triage: Triage) -> None:
        """Continue documents of which an earlier task encoded a part: it ended on purpose, so no attempt is counted."""
        if self.redelivered:
            return
        for group in (triage.requeued, triage.isolated):
            resumed = [stored for stored in group if stored.id in self.continued or self._partials.load(stored)]
            triage.first_attempt += resumed
            group[:] = [stored for stored in group if stored not in resumed]

    def _exhausted(self, stored: StoredDocument) -> EncodingFailure:
        code, reason = ATTEMPTS_EXHAUSTED
        attempts = attempts_begun(stored, self.redelivered)
        return EncodingFailure(stored, code, reason.format(attempts=attempts), final=True)

    def _read(self, ids: Sequence[str]) -> dict[str, object]:
        call = get_documents_call(self.generation.physical, ids)
        answer: dict[str, object] = retry(lambda: self.runtime.search.send(call), self.runtime.worker.retry_seconds)
        return answer

    def _count_attempts(self, documents: Sequence[StoredDocument]) -> list[StoredDocument]:
        """Record the beginning of an attempt. Return the documents as stored now, without changed documents.

        A talk gets a lease as long as a task may run. If the lease were shorter, a second worker would begin the talk.
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
            StoredDocument(write.id, write.version, write.source)
            for write, outcome in zip(writes, self._write(writes), strict=True)
            if outcome is WriteOutcome.STORED
        ]

    def _cut(self, stored: StoredDocument, before: EncodedDocument | None = None) -> WindowedDocument | EncodingFailure:
        """Cut a document into windows. `before`: the part of a talk that an earlier task encoded, with its chapters."""
        encoder, window, settings = self.runtime.encoder, self.generation.window, self.generation.spec.talk
        if settings is not None and is_talk(stored.source):
            made = None if before is None else before.chaptering
            chaptering = self._make_chaptering(stored, settings) if made is None else made
            windowed = cut_talk_windows(encoder, window, stored, chaptering, settings)
        else:
            windowed = cut_windows(encoder, window, stored)
        if isinstance(windowed, EncodingFailure):
            return windowed
        refusal = window_limit_refusal(len(windowed.windows), self.generation.spec)
        return windowed if refusal is None else EncodingFailure(stored, *refusal, final=True)

    def _make_chaptering(self, stored: StoredDocument, settings: TalkSettings) -> Chaptering:
        gave_up = stored.attempts >= attempts_allowed(stored, self.runtime.settings.max_attempts)
        seconds = self.runtime.worker.chapter_time
        chaptering = make_chaptering(stored, settings, self.runtime.maker, seconds, gave_up=gave_up)
        self.counts["without chapters"] += chaptering.error is not None
        return chaptering

    def _encode(self, documents: Sequence[StoredDocument]) -> list[StoredDocument]:
        """Encode and write documents. Return the documents that the task had no time for.

        Talk comes last and one by one, because its chapters may take as long as all other work.
        """
        left = self._encode_in_runs([stored for stored in documents if not is_talk(stored.source)])
        for stored in documents:
            if not is_talk(stored.source):
                continue
            if not self.in_time or not self._encode_talk(stored):
                left.append(stored)
        return left

    def _encode_talk(self, stored: StoredDocument) -> bool:
        """Encode a talk. Return False if the task has no time for the rest of it."""
        if not stored.attempts and len(stored.source["text"]) > LONG_TALK_CHARACTERS:
            counted = self._count_attempts([stored])
            if not counted:  # The document changed meanwhile.
                self.counts["superseded"] += 1
                return True
            (stored,) = counted
        before = self._partials.load(stored)
        windowed = self._cut(stored, before)
        outcome = self._encode_long_text(windowed, before) if isinstance(windowed, WindowedDocument) else windowed
        if outcome is None:
            return False
        if isinstance(outcome, EncodingFailure):
            self._record_failures([outcome])
        else:
            self._record_failures(self._count_outcomes([outcome], self._write(self._encoded_writes([outcome]))))
        return True

    def _encode_in_runs(self, documents: Sequence[StoredDocument]) -> list[StoredDocument]:
        cuts: list[WindowedDocument] = []
        failures: list[EncodingFailure] = []
        for stored in documents:
            windowed = self._cut(stored)
            if isinstance(windowed, WindowedDocument):
                cuts.append(windowed)
            else:
                failures.append(windowed)
        left: list[StoredDocument] = []
        # A thread writes one run to OpenSearch while the processor computes the next.
        writing: list[tuple[list[EncodedDocument], Future[list[WriteOutcome]]]] = []
        with ThreadPoolExecutor(1, "writer") as writer:
            for group in group_into_runs(cuts):
                if not self.in_time:
                    left += [windowed.stored for windowed in group]
                    continue
                if len(group[0].windows) > MAX_RUN_WINDOWS:
                    outcome = self._encode_long_text(group[0], self._partials.load(group[0].stored))
                    if outcome is None:
                        left.append(group[0].stored)
                        continue
                    outcomes = [outcome]
                else:
                    self.runs += 1
                    outcomes = encode_run(self.runtime.encoder, group, jointly=self.runtime.is_joint(self.generation))
                failures += [outcome for outcome in outcomes if isinstance(outcome, EncodingFailure)]
                encoded = [outcome for outcome in outcomes if isinstance(outcome, EncodedDocument)]
                writes = self._encoded_writes(encoded)
                writing.append((encoded, writer.submit(copy_context().run, self._write, writes)))
        for encoded, written in writing:
            failures += self._count_outcomes(encoded, written.result())
        self._record_failures(failures)
        return left

    def _encode_long_text(
        self, document: WindowedDocument, before: EncodedDocument | None
    ) -> EncodedDocument | EncodingFailure | None:
        """Encode a long text, or a part of it, after the part `before`.

        None: the task has no time for the rest, and the part is kept.
        """
        stored, encoder, jointly = document.stored, self.runtime.encoder, self.runtime.is_joint(self.generation)

        # A document whose part was lost would lose the next one as well, and begin anew in each task.
        is_lost = before is None and stored.id in self.continued

        def may_continue() -> bool:
            self.runs += 1
            return self.runs == 1 or is_lost or self.in_time

        outcome = encode_long_document(encoder, document, jointly=jointly, before=before, may_continue=may_continue)
        if isinstance(outcome, EncodingFailure) or len(outcome.windows) == len(document.windows):
            return outcome
        if stored.source["due_at"] - now_ms() < self.runtime.settings.lease_seconds * 500:
            # Less than half of the lease is left, and the sweeper would take the document for lost.
            write = requeue_write(self.generation, stored, self.runtime.settings.lease_seconds)
            if self._write([write]) != [WriteOutcome.STORED]:
                return None
            stored = StoredDocument(write.id, write.version, write.source)
        if self._partials.save(stored, outcome):
            self.kept.add(stored.id)
            return None
        return encode_long_document(encoder, document, jointly=jointly, before=outcome)

    def _encoded_writes(self, encoded: Sequence[EncodedDocument]) -> list[Write]:
        """Return the writes of encoded documents, with dense vectors when the generation declares them."""
        dense = self._dense_outcomes(encoded)
        self.counts["without dense vectors"] += sum(outcome is not None and bool(outcome.error) for outcome in dense)
        token = self.runtime.encoder.token
        return [
            encoded_write(self.generation, each.stored, each.windows, outcome, each.chaptering, token)
            for each, outcome in zip(encoded, dense, strict=True)
        ]

    def _dense_outcomes(self, encoded: Sequence[EncodedDocument]) -> Sequence[DenseOutcome | None]:
        """Return the dense vectors of encoded documents, from their own pass or from one more; None: none declared."""
        identity = self.generation.dense
        if identity is None:
            return [None] * len(encoded)
        model = self.runtime.dense(self.generation)
        if model is not None:
            return encode_dense_vectors(model, identity, [document.stored for document in encoded])
        return [
            DenseOutcome(error="encoding_failed") if document.dense is None else store_dense_vectors(document.dense)
            for document in encoded
        ]

    def _count_outcomes(
        self, encoded: Sequence[EncodedDocument], outcomes: Sequence[WriteOutcome]
    ) -> list[EncodingFailure]:
        """Count the outcomes of encoded documents.

        Return the documents that OpenSearch refused, as failures that `_record_failures` counts.
        """
        refused = []
        for document, outcome in zip(encoded, outcomes, strict=True):
            if outcome is WriteOutcome.REFUSED:
                reason = "OpenSearch refused the encoded document; its log has the reason."
                refused.append(EncodingFailure(document.stored, "refused_by_opensearch", reason, final=True))
            else:
                self.counts["encoded" if outcome is WriteOutcome.STORED else outcome.value] += 1
        return refused

    def _record_failures(self, failures: Sequence[EncodingFailure]) -> None:
        """Mark documents dead with the reason, or count the attempt when another attempt may succeed.

        The write decides the count: a document that changed meanwhile, or could not be marked, is not dead.
        """
        settings = self.runtime.settings
        writes = []
        states = []
        for failure in failures:
            stored = failure.stored
            # The attempt of a requeued document is already counted, a first attempt is not.
            attempts = max(stored.attempts, attempts_begun(stored, self.redelivered), 1)
            dead = failure.final or attempts >= attempts_allowed(stored, settings.max_attempts) or not stored.may_change
            states.append("dead" if dead else "failed")
            log.warning("document %r of %s: %s", stored.id, self.generation.physical, failure.code)
            if dead:
                counted = replace(stored, source=stored.source | {"attempts": attempts})
                writes.append(dead_write(self.generation, counted, failure.code, failure.reason))
            else:
                error = (failure.code, failure.reason)
                writes.append(attempt_write(self.generation, stored, attempts, settings.lease_seconds, error))
        for failure, state, outcome in zip(failures, states, self._write(writes), strict=True):
            self.counts[state if outcome is WriteOutcome.STORED else outcome.value] += 1
            if state == "dead" and outcome is WriteOutcome.STORED:
                DEAD_LETTERS.labels(failure.code).inc()

    def _write(self, writes: Sequence[Write]) -> list[WriteOutcome]:
        settings = self.runtime.settings
        if not writes:
            return []
        verdicts = write_bulk(self.runtime.search, writes, settings.journal_bytes, self.runtime.worker.retry_seconds)
        return [verdict.outcome for verdict in verdicts]


def run_encode(
    runtime: Runtime,
    message: EncodeMessage,
    *,
    redelivered: bool,
    loading: bool = False,
    continued: frozenset[str] = frozenset(),
) -> dict[str, int]:
    """Handle one message. Return the outcomes of its documents.

    `loading`: it came through a load lane. `continued`: documents of which an earlier task encoded a part.

    Documents that cannot be encoded now stay pending, and the sweeper enqueues them again.
    """
    try:
        run, left = _encode_message(runtime, message, continued, redelivered=redelivered, loading=loading)
    except EncoderMismatch as error:
        if runtime.should_log(str(error)):
            log.error("documents stay pending: %s", error)
        return {"mismatch": len(message.ids)}
    except (NotFound, InvalidInput) as error:
        log.warning("%s", error)
        return {"gone": len(message.ids)}
    except (BackendUnavailable, Overloaded) as error:
        log.warning("%d documents of %r stay pending: %s", len(message.ids), message.index, error)
        return {"postponed": len(message.ids)}
    if left:
        rest = message.model_copy(update={"ids": tuple(left)})
        _enqueue_rest(runtime, run.generation, rest, (run.kept | continued).intersection(left))
    return {name: count for name, count in run.counts.items() if count}


def _encode_message(
    runtime: Runtime, message: EncodeMessage, continued: frozenset[str], *, redelivered: bool, loading: bool
) -> tuple[EncodeRun, list[str]]:
    """Return the run and the ids of the documents that it had no time for."""
    generation = retry(lambda: runtime.generation(message.index, message.generation), runtime.worker.retry_seconds)
    runtime.check_encoder(generation)
    runtime.dense(generation)
    run = EncodeRun(runtime, generation, redelivered, loading, continued)
    try:
        return run, run.run(message.ids)
    except NotFound:
        # A swap retired the generation, or it was deleted and created again under this number.
        runtime.forget(message.index, message.generation)
        if runtime.generation(message.index, message.generation).token == generation.token:
            raise
        return _encode_message(runtime, message, continued, redelivered=redelivered, loading=loading)


def _enqueue_rest(runtime: Runtime, generation: Generation, rest: EncodeMessage, continued: Collection[str]) -> None:
    try:
        # The rest waits behind the other messages of its lane, also the rest of an interactive message.
        runtime.publisher.encode(generation.encoder.name, rest, continued=continued)
    except (BackendUnavailable, Overloaded) as error:
        log.warning("%d documents of %r stay pending: %s", len(rest.ids), rest.index, error)
        FAILED_ENQUEUES.inc()
