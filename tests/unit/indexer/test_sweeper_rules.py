"""The rules that decide whether an overdue document is tried again."""

import pytest

from indexer.sweeper import MAX_LEASE_SECONDS, next_lease_seconds
from indexer.triage import exhaustion_reason
from services.documents.document import VERSION_STRIDE, raw_version
from services.opensearch.stored_document import StoredDocument


def stored(*, attempts: int = 0, transitions: int = 0, error: dict[str, str] | None = None) -> StoredDocument:
    source = {"state": "pending", "attempts": attempts, "text": "words"} | ({"error": error} if error else {})
    return StoredDocument("a", raw_version(3) + transitions, source)


@pytest.mark.parametrize(("transitions", "lease"), [(0, 120), (1, 240), (4, 1920), (5, MAX_LEASE_SECONDS), (900, 3600)])
def test_a_lease_doubles_up_to_an_hour(transitions: int, lease: float) -> None:
    assert next_lease_seconds(stored(transitions=transitions), 120) == lease


def test_a_lease_of_more_than_an_hour_stays() -> None:
    assert next_lease_seconds(stored(transitions=9), 7200) == 7200


@pytest.mark.parametrize("transitions", [0, 1, 500, VERSION_STRIDE - 4])
def test_waiting_and_lost_messages_never_end_a_document(transitions: int) -> None:
    assert exhaustion_reason(stored(transitions=transitions), 3) is None


def test_attempts_that_never_ended_do() -> None:
    ended = exhaustion_reason(stored(attempts=3), 3)
    assert ended is not None
    assert ended[0] == "attempts_exhausted"
    assert "3 times" in ended[1]


def test_the_last_error_is_the_reason() -> None:
    error = {"code": "encoding_failed", "reason": "RuntimeError: broken"}
    assert exhaustion_reason(stored(attempts=3, error=error), 3) == ("encoding_failed", "RuntimeError: broken")


def test_a_document_without_free_versions_ends() -> None:
    ended = exhaustion_reason(stored(transitions=VERSION_STRIDE - 3), 3)
    assert ended is not None
    assert ended[0] == "given_up"
