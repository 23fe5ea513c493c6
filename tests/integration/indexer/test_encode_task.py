"""The encode task on a real node, called directly: its writes, their order, and the documents that it must not lose."""

import logging
import time
from dataclasses import replace

import orjson
import pytest
import redis
from prometheus_client import REGISTRY

from indexer.encode_task import run_encode
from indexer.encoding import MAX_RUN_WINDOWS
from indexer.runtime import Runtime, WorkerSettings
from models.encoder import Encoder
from services.documents.document import encoded_version
from services.encoders.vectors import merge_max
from services.index_spec import EncoderIdentity, IndexNames
from services.opensearch.bulk import Write, WriteOutcome, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import (
    create_generation_call,
    create_index_body,
    delete_generations_call,
    new_generation,
)
from services.opensearch.journal import attempt_write, dead_write, requeue_write, tombstone_write
from services.opensearch.reindex import copy_write
from services.opensearch.stored_document import read_windows
from services.queue.lanes import load_queue
from services.queue.messages import EncodeMessage
from services.settings import Settings
from tests.integration.indexer.journalled import Hooked, Journal


def put_through(search: SyncSearchClient, *writes: Write) -> list[WriteOutcome]:
    return [verdict.outcome for verdict in write_bulk(search, writes, 1024**2, 10)]


def hooked(runtime: Runtime, encoder: Encoder) -> Runtime:
    return Runtime(runtime.settings, runtime.worker, lambda _: encoder)


def test_pending_documents_become_encoded(runtime: Runtime, journal: Journal, standin: Encoder) -> None:
    journal.put({"a": "Pause the program", "b": "one two three four five " * 200})
    assert run_encode(runtime, journal.message("a", "b", "missing"), redelivered=False) == {"encoded": 2, "skipped": 1}
    for name in ("a", "b"):
        stored = journal.stored(name)
        assert stored.state == "encoded"
        assert stored.source["encoder"] == standin.fingerprint
        assert stored.source["attempts"] == 0
        assert "due_at" not in stored.source
        whole = journal.whole(name)
        windows = read_windows(whole)
        text = whole["text"]
        assert [(w.start, w.end) for w in windows] == [(w.start, w.end) for w in standin.windows(text)]
        assert merge_max(w.vector for w in windows).pack() == merge_max(standin.encode(standin.windows(text))).pack()
    assert len(read_windows(journal.whole("b"))) > 2


def test_a_second_delivery_encodes_nothing(runtime: Runtime, journal: Journal, standin: Encoder) -> None:
    journal.put({"a": "Pause the program"})
    run_encode(runtime, journal.message("a"), redelivered=False)
    watched = Hooked(standin)
    before = journal.stored("a")
    assert run_encode(hooked(runtime, watched), journal.message("a"), redelivered=True) == {"skipped": 1}
    assert watched.runs == []
    assert journal.stored("a") == before


def test_a_document_that_is_replaced_while_it_is_encoded_keeps_the_newer_text(
    runtime: Runtime, journal: Journal, standin: Encoder
) -> None:
    journal.put({"a": "the old text", "b": "a neighbour"}, version=1)
    once = iter([True])

    def replace_it(_: object) -> None:
        if next(once, False):
            journal.put({"a": "the new text"}, version=2)

    counts = run_encode(hooked(runtime, Hooked(standin, replace_it)), journal.message("a", "b"), redelivered=False)
    assert counts == {"encoded": 1, "superseded": 1}
    assert journal.states("a", "b") == ["pending", "encoded"]
    assert journal.stored("a").source["text"] == "the new text"
    run_encode(runtime, journal.message("a"), redelivered=False)
    assert journal.stored("a").state == "encoded"
    assert journal.stored("a").source["text"] == "the new text"


def test_a_document_that_is_deleted_while_it_is_encoded_stays_deleted(
    runtime: Runtime, journal: Journal, standin: Encoder, search: SyncSearchClient
) -> None:
    journal.put({"a": "text"}, version=1)

    def delete_it(_: object) -> None:
        put_through(search, tombstone_write(journal.generation, "a", 2))

    run_encode(hooked(runtime, Hooked(standin, delete_it)), journal.message("a"), redelivered=False)
    assert journal.stored("a").state == "deleted"


def test_two_workers_with_the_same_message_end_in_the_same_state(
    runtime: Runtime, journal: Journal, standin: Encoder
) -> None:
    journal.put({"a": "text"})

    def the_other(_: object) -> None:
        assert run_encode(runtime, journal.message("a"), redelivered=False) == {"encoded": 1}

    second = hooked(runtime, Hooked(standin, the_other))
    assert run_encode(second, journal.message("a"), redelivered=False) == {"superseded": 1}
    assert journal.stored("a").external == encoded_version(journal.stored("a").source["version"])


def test_an_index_of_another_encoder_waits_and_says_why(
    runtime: Runtime, journal: Journal, settings: Settings, search: SyncSearchClient, caplog: pytest.LogCaptureFixture
) -> None:
    other = journal.generation.model_copy(
        update={
            "index": "other", "physical": IndexNames(settings.index_prefix).physical("other", 1),
            "encoder": EncoderIdentity(name="standin", fingerprint="0" * 16),
        }
    )  # fmt: skip
    search.send(create_generation_call(other, settings, [IndexNames(settings.index_prefix).alias("other")]))
    journal.generation = other
    journal.put({"a": "text"})
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            message = EncodeMessage(index="other", ids=("a",))
            assert run_encode(runtime, message, redelivered=False) == {"mismatch": 1}
    assert journal.states("a") == ["pending"]
    assert journal.stored("a").attempts == 0
    assert caplog.text.count("encoder_mismatch") == 1  # a queue full of messages does not fill the log


def test_messages_for_an_index_that_is_gone_are_dropped(
    runtime: Runtime, journal: Journal, search: SyncSearchClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert run_encode(runtime, EncodeMessage(index="nowhere", ids=("a",)), redelivered=False) == {"gone": 1}
    search.send(delete_generations_call([journal.generation]))
    assert run_encode(runtime, journal.message("a"), redelivered=False) == {"gone": 1}
    assert "index_not_found" in caplog.text


def test_a_message_names_a_generation_that_is_not_searched(
    runtime: Runtime, journal: Journal, settings: Settings, search: SyncSearchClient, standin: Encoder
) -> None:
    names = IndexNames(settings.index_prefix)
    second = new_generation(names, "papers", 2, journal.generation.spec, standin.manifest)
    search.send(create_generation_call(second, settings, []))
    journal.put({"a": "in the first"})
    first = journal.stored("a")
    carried_over = copy_write(journal.generation, second, first, 60)
    assert put_through(search, carried_over) == [WriteOutcome.STORED]
    journal.generation = second
    message = EncodeMessage(index="papers", ids=("a",), generation=2)
    assert run_encode(runtime, message, redelivered=False) == {"encoded": 1}
    assert journal.stored("a").state == "encoded"


def test_what_was_enqueued_again_has_an_attempt_counted_before_it_is_encoded(
    runtime: Runtime, journal: Journal, standin: Encoder, search: SyncSearchClient
) -> None:
    journal.put({"a": "one", "b": "two"})
    assert put_through(
        search, *(requeue_write(journal.generation, journal.stored(name), 60) for name in ("a", "b"))
    ) == [WriteOutcome.STORED, WriteOutcome.STORED]
    seen = []
    watched = Hooked(standin, lambda _: seen.extend(journal.stored(name).attempts for name in ("a", "b")))
    run_encode(hooked(runtime, watched), journal.message("a", "b"), redelivered=False)
    assert (seen, watched.runs) == ([1, 1], [2])
    assert journal.states("a", "b") == ["encoded", "encoded"]


def test_what_comes_back_is_counted_and_encoded_one_by_one(
    runtime: Runtime, journal: Journal, standin: Encoder
) -> None:
    journal.put({"a": "one", "b": "two"})
    seen = []
    watched = Hooked(standin, lambda _: seen.append((journal.stored("a").attempts, journal.stored("b").attempts)))
    run_encode(hooked(runtime, watched), journal.message("a", "b"), redelivered=True)
    assert (seen, watched.runs) == ([(2, 0), (2, 2)], [1, 1])
    assert journal.states("a", "b") == ["encoded", "encoded"]


def test_after_the_last_attempt_the_document_is_dead_with_the_reason(
    runtime: Runtime, journal: Journal, search: SyncSearchClient, standin: Encoder
) -> None:
    journal.put({"a": "one", "b": "two"})
    assert put_through(search, attempt_write(journal.generation, journal.stored("a"), 3, 60)) == [WriteOutcome.STORED]
    watched = Hooked(standin)
    counts = run_encode(hooked(runtime, watched), journal.message("a", "b"), redelivered=True)
    assert counts == {"dead": 1, "encoded": 1}
    dead = journal.stored("a")
    assert dead.state == "dead"
    assert dead.source["error"]["code"] == "attempts_exhausted"
    assert dead.source["text"] == "one"
    assert watched.runs == [1]


def test_a_document_that_raises_is_tried_thrice_and_its_neighbours_once(
    runtime: Runtime, journal: Journal, standin: Encoder
) -> None:
    journal.put({"a": "good", "b": "bad", "c": "good as well"})
    (bad,) = standin.windows("bad")

    def fail(windows: object) -> None:
        if bad in windows:  # type: ignore[operator]
            raise RuntimeError("an accident")

    failing = hooked(runtime, Hooked(standin, fail))
    assert run_encode(failing, journal.message("a", "b", "c"), redelivered=False) == {"encoded": 2, "failed": 1}
    assert journal.stored("b").attempts == 1
    assert journal.stored("b").source["error"] == {"code": "encoding_failed", "reason": "RuntimeError: an accident"}
    before = dead_letters("encoding_failed")
    assert run_encode(failing, journal.message("b"), redelivered=False) == {"failed": 1}
    assert dead_letters("encoding_failed") == before
    assert run_encode(failing, journal.message("b"), redelivered=False) == {"dead": 1}
    assert dead_letters("encoding_failed") == before + 1
    assert journal.stored("b").source["attempts"] == 3
    assert journal.stored("b").source["error"]["code"] == "encoding_failed"
    assert journal.states("a", "c") == ["encoded", "encoded"]


def dead_letters(code: str) -> float:
    return REGISTRY.get_sample_value("sparsewell_dead_letters_total", {"code": code}) or 0.0


def test_what_is_replaced_while_it_fails_for_the_last_time_is_no_dead_letter(
    runtime: Runtime, journal: Journal, search: SyncSearchClient, standin: Encoder
) -> None:
    journal.put({"a": "old"}, version=1)
    assert put_through(search, attempt_write(journal.generation, journal.stored("a"), 2, 60)) == [WriteOutcome.STORED]

    def replace_and_fail(_: object) -> None:
        journal.put({"a": "new"}, version=2)
        raise RuntimeError("an accident")

    failing, before = hooked(runtime, Hooked(standin, replace_and_fail)), dead_letters("encoding_failed")
    assert run_encode(failing, journal.message("a"), redelivered=False) == {"superseded": 1}
    assert dead_letters("encoding_failed") == before
    assert journal.stored("a").state == "pending"


def test_a_document_that_was_dead_and_is_sent_anew_is_encoded(
    runtime: Runtime, journal: Journal, search: SyncSearchClient
) -> None:
    journal.put({"a": "old"}, version=1)
    assert put_through(search, dead_write(journal.generation, journal.stored("a"), "x", "y")) == [WriteOutcome.STORED]
    assert run_encode(runtime, journal.message("a"), redelivered=False) == {"skipped": 1}
    journal.put({"a": "new"}, version=2)
    assert run_encode(runtime, journal.message("a"), redelivered=False) == {"encoded": 1}
    assert "error" not in journal.stored("a").source


def test_what_there_is_no_time_for_is_sent_on(
    settings: Settings, journal: Journal, standin: Encoder, broker: "redis.Redis", runtime: Runtime
) -> None:
    names = [f"d{i}" for i in range(40)]
    journal.put({name: f"words {name}" for name in names})
    slow = Hooked(standin, lambda _: time.sleep(0.2))
    short = Runtime(settings, WorkerSettings(task_budget=0.1), lambda _: slow)
    counts = run_encode(short, journal.message(*names), redelivered=False)
    assert counts["encoded"] + counts["left"] == 40
    assert counts["left"] > 0
    assert broker.llen(load_queue("standin", "papers")) == 1
    assert journal.states(*names).count("pending") == counts["left"]


def test_without_opensearch_the_documents_stay_pending(settings: Settings, standin: Encoder) -> None:
    away = settings.model_copy(update={"opensearch_url": "http://127.0.0.1:9"})
    runtime = Runtime(away, WorkerSettings(retry_seconds=0.5), lambda _: standin)
    begun = time.monotonic()
    assert run_encode(runtime, EncodeMessage(index="papers", ids=("a",)), redelivered=False) == {"postponed": 1}
    assert time.monotonic() - begun < 20


def test_a_document_that_opensearch_refuses_encoded_is_dead(
    runtime: Runtime, journal: Journal, search: SyncSearchClient, settings: Settings, standin: Encoder
) -> None:
    search.send(without_vectors(journal, settings))
    journal.put({"a": "text"})
    before = dead_letters("refused_by_opensearch")
    assert run_encode(runtime, EncodeMessage(index="bare", ids=("a",)), redelivered=False) == {"dead": 1}
    assert dead_letters("refused_by_opensearch") == before + 1
    assert journal.stored("a").source["error"]["code"] == "refused_by_opensearch"


def without_vectors(journal: Journal, settings: Settings) -> Call:
    """Create an index like the journal's without the field of the vectors, and use it as the journal."""
    names = IndexNames(settings.index_prefix)
    journal.generation = journal.generation.model_copy(update={"index": "bare", "physical": names.physical("bare", 1)})
    body = create_index_body(journal.generation, settings, [names.alias("bare")])
    del body["mappings"]["properties"]["sparse"]
    call = create_generation_call(journal.generation, settings, [])
    return replace(call, body=orjson.dumps(body))


def test_a_long_text_passes_through_several_tasks_and_no_window_is_encoded_twice(
    settings: Settings, journal: Journal, standin: Encoder, broker: "redis.Redis"
) -> None:
    text = "one two three four five six seven " * 3600
    journal.put({"long": text, "whole": text})
    windows = len(standin.windows(text))
    assert windows > 3 * MAX_RUN_WINDOWS
    slow = Hooked(standin, lambda _: time.sleep(0.05))
    short = Runtime(settings, WorkerSettings(task_budget=0.01), lambda _: slow)
    tasks = 0
    while journal.states("long") == ["pending"]:
        counts = run_encode(short, journal.message("long"), redelivered=False)
        tasks += 1
        assert counts in ({"left": 1}, {"encoded": 1})
        assert broker.llen(load_queue("standin", "papers")) == tasks - (counts == {"encoded": 1}), "it is sent on"
    assert tasks == -(-windows // MAX_RUN_WINDOWS)
    assert sum(slow.runs) == windows
    assert run_encode(
        Runtime(settings, WorkerSettings(), lambda _: standin), journal.message("whole"), redelivered=False
    )
    assert journal.whole("long")["windows"] == journal.whole("whole")["windows"]
    assert journal.stored("long").attempts == 0, "a task that ends on purpose is no attempt"


def test_a_part_belongs_to_one_version_and_its_loss_costs_only_time(
    settings: Settings, journal: Journal, standin: Encoder, broker: "redis.Redis"
) -> None:
    journal.put({"long": "one two three four five six seven " * 3600})
    short = Runtime(settings, WorkerSettings(task_budget=0.01), lambda _: Hooked(standin, lambda _: time.sleep(0.05)))
    assert run_encode(short, journal.message("long"), redelivered=False) == {"left": 1}
    journal.put({"long": "eight nine ten eleven twelve thirteen " * 3600})
    watched = Hooked(standin)
    text = journal.stored("long").source["text"]
    patient = Runtime(settings, WorkerSettings(), lambda _: watched)
    assert run_encode(patient, journal.message("long"), redelivered=False) == {"encoded": 1}
    assert sum(watched.runs) == len(standin.windows(text)), "nothing of the other text was kept"
    journal.put({"long": "fourteen fifteen sixteen " * 7200})
    assert run_encode(short, journal.message("long"), redelivered=False) == {"left": 1}
    broker.flushall()
    assert run_encode(hooked(short, standin), journal.message("long"), redelivered=False) in (
        {"left": 1},
        {"encoded": 1},
    )


def test_a_text_whose_part_was_lost_is_encoded_without_a_pause_and_counts_no_attempt(
    settings: Settings, journal: Journal, standin: Encoder, broker: "redis.Redis"
) -> None:
    """Its part would be lost before each next task, so it would begin anew for ever."""
    journal.put({"long": "one two three four five six seven " * 3600})
    short = Runtime(settings, WorkerSettings(task_budget=0.01), lambda _: Hooked(standin, lambda _: time.sleep(0.05)))
    for _ in range(3):  # the control: nobody tells the task that there was a part
        assert run_encode(short, journal.message("long"), redelivered=False) == {"left": 1}
        rest = orjson.loads(broker.lindex(load_queue("standin", "papers"), 0) or b"")
        assert rest["headers"]["continued"] == ["long"]
        broker.flushall()
    continued = frozenset(rest["headers"]["continued"])
    assert run_encode(short, journal.message("long"), redelivered=False, continued=continued) == {"encoded": 1}
    assert journal.stored("long").attempts == 0


def test_a_load_makes_way_for_an_interactive_write(
    settings: Settings, journal: Journal, standin: Encoder, runtime: Runtime
) -> None:
    names = [f"d{i}" for i in range(40)]
    journal.put({name: f"words {name}" for name in (*names, "urgent")})
    runtime.publisher.encode("standin", journal.message("urgent"), interactive=True)
    counts = run_encode(hooked(runtime, standin), journal.message(*names), redelivered=False, loading=True)
    assert counts == {"encoded": MAX_RUN_WINDOWS, "left": 40 - MAX_RUN_WINDOWS}
    assert run_encode(hooked(runtime, standin), journal.message(*names), redelivered=False) == {
        "encoded": 40 - MAX_RUN_WINDOWS, "skipped": MAX_RUN_WINDOWS,
    }, "an interactive message gives way to nothing"  # fmt: skip
