"""Triage of a message's documents by the isolation that they need."""

from indexer.triage import triage_documents
from services.documents.document import VERSION_STRIDE, next_transition, raw_version
from services.opensearch.stored_document import StoredDocument

MAX = 3


def stored(name: str, *, state: str = "pending", attempts: int = 0, transitions: int = 0) -> StoredDocument:
    return StoredDocument(name, raw_version(7) + transitions, {"state": state, "attempts": attempts, "text": "words"})


def names(documents: list[StoredDocument]) -> list[str]:
    return [one.id for one in documents]


def test_what_is_not_pending_is_left_alone() -> None:
    found = triage_documents(
        [stored(state, state=state) for state in ("encoded", "dead", "deleted")], redelivered=True, max_attempts=MAX
    )
    assert not (found.first_attempt or found.requeued or found.isolated or found.exhausted)


def test_a_first_delivery_is_fresh() -> None:
    assert names(triage_documents([stored("a")], redelivered=False, max_attempts=MAX).first_attempt) == ["a"]


def test_what_the_sweeper_sent_again_is_suspected_however_often_it_did() -> None:
    found = triage_documents(
        [stored("a", transitions=1), stored("b", transitions=900)], redelivered=False, max_attempts=MAX
    )
    assert names(found.requeued) == ["a", "b"]


def test_what_comes_back_is_encoded_alone_the_least_suspicious_first() -> None:
    found = triage_documents([stored("b", attempts=2), stored("a")], redelivered=True, max_attempts=MAX)
    assert names(found.isolated) == ["a", "b"]


def test_an_attempt_that_began_before_is_remembered_on_a_fresh_message() -> None:
    assert names(triage_documents([stored("a", attempts=1)], redelivered=False, max_attempts=MAX).isolated) == ["a"]


def test_after_the_last_attempt_there_is_none() -> None:
    found = triage_documents([stored("a", attempts=3), stored("b", attempts=2)], redelivered=False, max_attempts=MAX)
    assert (names(found.exhausted), names(found.isolated)) == (["a"], ["b"])


def test_with_one_attempt_allowed_a_message_that_comes_back_is_the_end() -> None:
    assert names(triage_documents([stored("a")], redelivered=True, max_attempts=1).exhausted) == ["a"]


def test_a_document_without_free_versions_can_only_die() -> None:
    last = VERSION_STRIDE - 3
    found = triage_documents(
        [stored("a", transitions=last), stored("b", transitions=last - 1)], redelivered=False, max_attempts=MAX
    )
    assert (names(found.exhausted), names(found.requeued)) == (["a"], ["b"])
    next_transition(found.exhausted[0].external)  # the failure is a transition too


def test_talk_is_attempted_twice_at_least() -> None:
    """The second attempt omits the chapter engine, which may have killed the worker."""
    talk = StoredDocument("t", raw_version(7), {"state": "pending", "attempts": 0, "text": "words", "kind": "talk"})
    found = triage_documents([talk], redelivered=True, max_attempts=1)
    assert (names(found.isolated), found.exhausted) == (["t"], [])
