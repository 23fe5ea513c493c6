"""Tests of the intake: each document is accepted or rejected on its own."""

import time

import pytest
from prometheus_client import REGISTRY

from services.documents.document import Document, VersionClock, client_version, raw_version
from services.documents.intake import Intake
from services.encoders.manifest import WindowSettings
from services.errors import InvalidInput
from services.index_spec import EncoderIdentity, Generation, IndexSpec
from services.opensearch.bulk import Verdict, WriteOutcome
from services.opensearch.stored_document import StoredDocument

GENERATION = Generation(
    index="docs", number=1, physical="sparsewell-docs.g000001", spec=IndexSpec.model_validate({}),
    encoder=EncoderIdentity(name="standin", fingerprint="0" * 16), window=WindowSettings(pieces=64, overlap=8),
    created_at="2026-01-01T00:00:00+00:00",
)  # fmt: skip


def refuse() -> Document:
    raise InvalidInput("missing_text", "no text", id="b")


def test_accepted_rejected_and_duplicate_documents() -> None:
    intake = Intake(GENERATION, "job", VersionClock(), 120)
    intake.receive(1, lambda: Document("a", "x", version=5))
    intake.receive(2, refuse)
    intake.receive(4, lambda: Document("a", "y"))
    intake.receive(5, lambda: Document("c", "z"))
    first, second = intake.writes(intake.waiting_ids, {}, intake.clock.next())
    assert (first.id, first.version) == ("a", raw_version(5))
    assert client_version(second.version) > 1_600_000_000_000_000  # the server's clock in microseconds
    assert intake.apply_verdicts([Verdict(WriteOutcome.STORED, physical="g1"), Verdict(WriteOutcome.SUPERSEDED)]) == {
        "g1": ["a"]
    }
    assert intake.accepted == ["a"]
    assert [(r.position, r.id, r.code) for r in intake.rejections] == [
        (2, "b", "missing_text"), (4, "a", "duplicate_id"), (5, "c", "stale_version"),
    ]  # fmt: skip
    assert intake.waiting == 0


def test_accepted_ids_are_grouped_by_generation_during_a_swap() -> None:
    intake = Intake(GENERATION, "job", VersionClock(), 120)
    for position, name in enumerate("abc", 1):
        intake.receive(position, lambda name=name: Document(name, "x"))  # type: ignore[misc]
    intake.writes(intake.waiting_ids, {}, intake.clock.next())
    held = intake.apply_verdicts([Verdict(WriteOutcome.STORED, physical=physical) for physical in ("g1", "g2", "g1")])
    assert held == {"g1": ["a", "c"], "g2": ["b"]}
    assert intake.accepted == ["a", "b", "c"]


def test_a_lower_version_is_written_when_the_higher_one_is_refused() -> None:
    intake = Intake(GENERATION, "job", VersionClock(), 120)
    for position, version in enumerate((1, 3, 2, 4), 1):
        intake.receive(position, lambda version=version: Document("a", "x", version=version))  # type: ignore[misc]
    written = []
    for verdict in (
        Verdict(WriteOutcome.REFUSED, "mapper_parsing_exception"),
        Verdict(WriteOutcome.STORED, physical="g1"),
    ):
        (write,) = intake.writes(intake.waiting_ids, {}, intake.clock.next())
        written.append(client_version(write.version))
        intake.apply_verdicts([verdict])
    assert (written, intake.waiting, intake.accepted) == ([4, 3], 0, ["a"])
    assert [(r.position, r.code) for r in intake.rejections] == [
        (1, "stale_version"), (3, "stale_version"), (4, "refused_by_opensearch"),
    ]  # fmt: skip
    assert intake.rejected == 3


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (1, 3, 2)])
def test_versions_of_one_request_are_tried_from_the_highest_on(order: tuple[int, ...]) -> None:
    intake = Intake(GENERATION, "job", VersionClock(), 120)
    for position, version in enumerate(order, 1):
        intake.receive(position, lambda version=version: Document("a", "x", version=version))  # type: ignore[misc]
    assert (intake.waiting, intake.held) == (1, 3)
    written = []
    for outcome in (WriteOutcome.REFUSED, WriteOutcome.REFUSED, WriteOutcome.STORED):
        (write,) = intake.writes(intake.waiting_ids, {}, intake.clock.next())
        written.append(client_version(write.version))
        intake.apply_verdicts([Verdict(outcome, "refused", physical="g1")])
    assert (written, intake.waiting, intake.held, intake.accepted) == ([3, 2, 1], 0, 0, ["a"])
    assert [r.code for r in intake.rejections] == ["refused_by_opensearch"] * 2


def test_a_document_that_was_not_stored_in_time_is_said_for_all_its_versions() -> None:
    intake = Intake(GENERATION, "job", VersionClock(), 120)
    for position, version in enumerate((1, 2), 1):
        intake.receive(position, lambda version=version: Document("a", "x", version=version))  # type: ignore[misc]
    intake.writes(intake.waiting_ids, {}, intake.clock.next())
    intake.apply_verdicts([Verdict(WriteOutcome.NOT_STORED, "timeout")])
    assert ([r.code for r in intake.rejections], intake.not_stored, intake.held) == (["not_stored"] * 2, 2, 0)


def test_the_raw_write_contains_the_client_s_members() -> None:
    intake = Intake(GENERATION, "job", VersionClock(), 120)
    intake.receive(1, lambda: Document("a", "x", "T", {"tag": "y"}, 3))
    source = intake.writes(intake.waiting_ids, {}, intake.clock.next())[0].source
    assert {k: source[k] for k in ("text", "title", "metadata", "state", "job", "version", "attempts")} == {
        "text": "x", "title": "T", "metadata": {"tag": "y"}, "state": "pending", "job": "job", "version": 3,
        "attempts": 0,
    }  # fmt: skip
    assert source["due_at"] - source["ingested_at"] == 120_000


def test_writes_onto_versions_far_ahead_are_counted() -> None:
    def written_onto(version: int) -> float:
        intake, before = Intake(GENERATION, "job", VersionClock(), 120), counted()
        intake.receive(1, lambda: Document("a", "x"))
        (write,) = intake.writes(
            ["a"],
            {"a": StoredDocument("a", raw_version(version), {"state": "pending", "text": "y"})},
            intake.clock.next(),
        )
        assert client_version(write.version) > version
        return counted() - before

    def counted() -> float:
        return REGISTRY.get_sample_value("sparsewell_versions_ahead_total") or 0.0

    now = time.time_ns() // 1000
    assert written_onto(now + 1_000_000) == 0
    assert written_onto(now + 86_400_000_000) == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_document_that_the_request_itself_stored_keeps_its_version(*, first: bool) -> None:
    """Executions of one request with an idempotency key run at once. None may raise what another has stored."""
    intake = Intake(GENERATION, "job", VersionClock(), 120, version=7, first=first)
    intake.receive(1, lambda: Document("a", "x"))
    intake.receive(2, lambda: Document("b", "x"))
    stored = {
        name: StoredDocument(name, raw_version(7), {"state": "pending", "text": "x", "job": job, "version": 7})
        for name, job in (("a", "job"), ("b", "another"))
    }
    own, foreign = intake.writes(["a", "b"], stored, intake.clock.next())
    assert client_version(own.version) == 7
    assert (client_version(foreign.version) > 7) is first
