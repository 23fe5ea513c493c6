"""The ingest task on a real node, called directly: journalled documents, job reports and repeated messages."""

import time
from typing import Any

import pytest
import redis
from celery.exceptions import Reject

from indexer.encode_task import run_encode
from indexer.ingest_task import run_ingest
from indexer.runtime import Runtime, WorkerSettings
from models.encoder import Encoder
from services.documents.document import raw_version
from services.opensearch.client import SyncSearchClient
from services.opensearch.jobs import load_job_call
from services.queue.lanes import load_queue
from services.settings import Settings
from tests.integration.indexer.journalled import Journal


def body(*documents: Any, **more: Any) -> dict[str, Any]:
    return {"contract": "sparsewell.ingest.v1", "index": "papers", "documents": list(documents)} | more


def job(runtime: Runtime, name: str) -> dict[str, Any]:
    source: dict[str, Any] = runtime.search.send(load_job_call(runtime.names, name))["_source"]
    return source


def test_documents_are_journalled_enqueued_and_counted(
    runtime: Runtime, journal: Journal, broker: "redis.Redis"
) -> None:
    message = body({"id": "a", "text": "one", "metadata": {"year": 1999}}, {"id": "b", "text": "two", "version": 7})
    assert run_ingest(runtime, message, "m1", redelivered=False) == {"accepted": 2, "rejected": 0}
    assert journal.states("a", "b") == ["pending", "pending"]
    assert journal.stored("b").external == raw_version(7)
    assert journal.stored("a").source["job"] == "m1"
    assert broker.llen(load_queue("standin", "papers")) == 1
    record = job(runtime, "m1")
    assert (record["accepted"], record["rejected"], record["complete"]) == (2, 0, True)


def test_what_is_refused_is_in_the_job_with_its_place(runtime: Runtime, journal: Journal) -> None:
    journal.put({"old": "newer"}, version=9)
    message = body(
        {"id": "a", "text": "one"},
        {"id": "b"},
        {"id": "a", "text": "again"},
        {"id": "old", "text": "late", "version": 8},
        {"id": "big", "text": "x" * 2_000_000},
        {"id": "y", "text": "z", "metadata": {"year": "no number"}},
        offset=100,
        job="nightly",
    )
    assert run_ingest(runtime, message, "m1", redelivered=False) == {"accepted": 1, "rejected": 5}
    found = {r["position"]: (r["id"], r["code"]) for r in job(runtime, "nightly")["rejections"]}
    assert found == {
        102: ("b", "missing_text"), 103: ("a", "duplicate_id"), 104: ("old", "stale_version"),
        105: ("big", "document_too_large"), 106: ("y", "bad_metadata"),
    }  # fmt: skip
    assert journal.stored("old").source["text"] == "newer"


def test_messages_of_one_job_are_added_up_and_each_is_counted_once(runtime: Runtime, journal: Journal) -> None:
    sent_at = time.time_ns() // 1000
    first = body({"id": "a", "text": "one"}, {"id": "x"}, job="load", sent_at=sent_at)
    second = body({"id": "b", "text": "two"}, job="load", sent_at=sent_at, offset=2)
    assert run_ingest(runtime, first, "m1", redelivered=False) == {"accepted": 1, "rejected": 1}
    assert run_ingest(runtime, second, "m2", redelivered=False) == {"accepted": 1, "rejected": 0}
    before = journal.stored("a")
    # m1 comes again: its documents are already stored, so it adds no refusals and no counts
    assert run_ingest(runtime, first, "m1", redelivered=True) == {"accepted": 1, "rejected": 1}
    assert journal.stored("a") == before
    record = job(runtime, "load")
    assert (record["accepted"], record["rejected"], len(record["rejections"])) == (2, 1, 1)


def test_a_message_that_comes_late_again_does_not_bring_the_old_text_back(runtime: Runtime, journal: Journal) -> None:
    now = time.time_ns() // 1000
    old, new = body({"id": "a", "text": "old"}, sent_at=now - 10), body({"id": "a", "text": "new"}, sent_at=now)
    run_ingest(runtime, old, "m1", redelivered=False)
    run_ingest(runtime, new, "m2", redelivered=False)
    run_ingest(runtime, old, "m1", redelivered=True)
    assert journal.stored("a").source["text"] == "new"
    assert run_encode(runtime, journal.message("a"), redelivered=False) == {"encoded": 1}
    run_ingest(runtime, new, "m2", redelivered=True)
    assert journal.states("a") == ["encoded"]  # the repetition does not cause a second encoding either


def test_without_a_time_a_late_message_does_bring_it_back(runtime: Runtime, journal: Journal) -> None:
    """The control of the test above, and the reason why producers should send a timestamp."""
    old, new = body({"id": "a", "text": "old"}), body({"id": "a", "text": "new"})
    for message, name, again in ((old, "m1", False), (new, "m2", False), (old, "m1", True)):
        run_ingest(runtime, message, name, redelivered=again)
    assert journal.stored("a").source["text"] == "old"


def test_a_producers_clock_from_the_future_does_not_lock_documents(runtime: Runtime, journal: Journal) -> None:
    ahead = time.time_ns() // 1000 + 10**12
    run_ingest(runtime, body({"id": "a", "text": "one"}, sent_at=ahead), "m1", redelivered=False)
    assert journal.stored("a").source["version"] <= time.time_ns() // 1000


def test_an_unknown_index_is_said_in_the_job(
    runtime: Runtime, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    message = body({"id": "a", "text": "x"}, {"id": "b", "text": "y"}) | {"index": "nowhere"}
    assert run_ingest(runtime, message, "m1", redelivered=False) == {"rejected": 2}
    record = job(runtime, "m1")
    assert (record["rejected"], record["rejections"][0]["code"]) == (2, "index_not_found")
    assert "index_not_found" in caplog.text


@pytest.mark.parametrize(
    "message",
    [
        {"index": "papers", "documents": [{"id": "a"}, 1], "job": "x"},
        {"index": "papers", "documents": [{"id": "a"}, {}], "job": "x", "more": True},
        {"contract": "sparsewell.ingest.v2", "index": "papers", "documents": [{}, {}], "job": "x"},
    ],
)
def test_a_message_that_breaks_the_contract_is_said_in_its_job(
    runtime: Runtime, journal: Journal, caplog: pytest.LogCaptureFixture, message: dict[str, Any]
) -> None:
    assert run_ingest(runtime, message, "m1", redelivered=False) == {"rejected": 2}
    assert "invalid_message" in caplog.text
    assert job(runtime, "x")["rejections"][1]["code"] == "invalid_message"


@pytest.mark.parametrize("message", [{}, {"index": 7}, {"index": "No Such Name", "documents": 3}, {"documents": None}])
def test_a_message_that_says_nothing_is_logged_and_dropped(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, message: dict[str, Any]
) -> None:
    assert run_ingest(runtime, message, "m1", redelivered=False) == {"rejected": 0}
    assert "invalid_message" in caplog.text


def test_without_opensearch_the_message_goes_back_to_its_queue(settings: Settings, standin: Encoder) -> None:
    away = settings.model_copy(update={"opensearch_url": "http://127.0.0.1:9"})
    runtime = Runtime(away, WorkerSettings(retry_seconds=0.5), lambda _: standin)
    with pytest.raises(Reject) as caught:
        run_ingest(runtime, body({"id": "a", "text": "x"}), "m1", redelivered=False)
    assert caught.value.requeue


def test_without_a_place_for_messages_the_documents_are_kept(
    settings: Settings, journal: Journal, standin: Encoder, search: SyncSearchClient
) -> None:
    lonely = Runtime(
        settings.model_copy(update={"redis_url": "redis://127.0.0.1:9/0"}),
        WorkerSettings(retry_seconds=1),
        lambda _: standin,
    )
    assert run_ingest(lonely, body({"id": "a", "text": "x"}), "m1", redelivered=False) == {"accepted": 1, "rejected": 0}
    assert journal.states("a") == ["pending"]


def test_a_message_from_before_the_oldest_tombstones_is_refused(runtime: Runtime, journal: Journal) -> None:
    old = time.time_ns() // 1000 - int((runtime.settings.tombstone_days + 1) * 86_400e6)
    message = body({"id": "a", "text": "one"}, sent_at=old)
    assert run_ingest(runtime, message, "m1", redelivered=False) == {"rejected": 1}
    assert job(runtime, "m1")["rejections"][0]["code"] == "message_too_old"
    recent = body({"id": "a", "text": "one"}, sent_at=old + int(2 * 86_400e6))
    assert run_ingest(runtime, recent, "m2", redelivered=False) == {"accepted": 1, "rejected": 0}
