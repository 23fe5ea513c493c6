"""Mishaps of a reindexing: late workers, expired deletes, late invalid documents, replaced indexes."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer.reindex.follower import Follower, make_local_dispatch
from indexer.reindex.plan import GenerationChanges, plan_generation
from indexer.reindex.run import Reindexing, decide_swap, finish_abandoned_swaps, finish_swap
from indexer.retention import RetentionCleanup
from indexer.runtime import Runtime, WorkerSettings
from models.encoder import Encoder
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.errors import Conflict, NotFound
from services.index_spec import Generation, IndexNames
from services.opensearch.bulk import WriteOutcome, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import create_generation_call, delete_generations_call, new_generation
from services.opensearch.journal import (
    dead_write,
    encoded_write,
    get_documents_call,
    read_stored_documents,
    tombstone_write,
)
from services.opensearch.reindex import ReindexRecords
from services.queue.messages import Publisher
from services.settings import Settings
from tests.integration.indexer.journalled import Journal
from tests.integration.indexer.reindexing import another_encoder

Tell = Callable[[object], None]


class Work:
    """Run a reindexing step by step in this process, with its own encoder."""

    def __init__(self, settings: Settings, search: SyncSearchClient, encoder: Encoder) -> None:
        self.settings, self.search, self.encoder = settings, search, encoder
        self.run = Reindexing(search, settings, "papers")

    def begin(self, changes: GenerationChanges) -> Follower:
        source = self.run.active()
        manifest = read_manifest(resolve_model_directory(changes.encoder or "standin"))
        target = plan_generation(
            IndexNames(self.settings.index_prefix), source, self.run.next_number(), changes, manifest
        )
        self.run.begin(source, target)
        return self.follow()

    def follow(self) -> Follower:
        self.run.make_target()
        runtime = Runtime(self.settings, WorkerSettings(retry_seconds=5), lambda _: self.encoder)
        return self.run.follower(make_local_dispatch(runtime, self.run.current_record.target), 10)

    def settle(self, follower: Follower) -> None:
        self.run.follow_until_caught_up(follower, 20, lambda _: None)

    def stored(self, generation: Generation, name: str) -> dict[str, object] | None:
        found = read_stored_documents(self.search.send(get_documents_call(generation.physical, [name])))
        return found[0].source if found else None


@pytest.fixture
def work(settings: Settings, search: SyncSearchClient, standin: Encoder) -> Work:
    return Work(settings, search, standin)


PRUNED = GenerationChanges(document_top_k=100)
CUT = GenerationChanges(window_pieces=32, window_overlap=4)


def test_a_late_worker_of_a_generation_that_was_given_up_writes_nothing_into_the_next(
    journal: Journal, work: Work, search: SyncSearchClient, tmp_path: Path
) -> None:
    journal.put({"a": "words"})
    work.begin(GenerationChanges(encoder=str(another_encoder(tmp_path / "other"))))
    given_up = work.run.current_record.target
    late = encoded_write(given_up, journal.stored("a"), [])
    work.run.abort()
    work.settle(work.begin(CUT))
    assert work.run.current_record.target.number == given_up.number, "the number is given out again"
    with pytest.raises(NotFound):
        write_bulk(search, [late], 10_000, 5)
    found = work.stored(work.run.current_record.target, "a")
    assert found is not None and found["encoder"] == read_manifest(resolve_model_directory("standin")).fingerprint


def test_a_pause_longer_than_deletes_are_kept_is_noticed(
    journal: Journal, work: Work, search: SyncSearchClient
) -> None:
    journal.put({"a": "forget me", "b": "words"}, version=1)
    work.settle(work.begin(CUT))
    write_bulk(search, [tombstone_write(journal.generation, "a", 2)], 10_000, 5)
    short = work.settings.model_copy(update={"tombstone_days": 1 / 86_400})
    time.sleep(1.2)
    journal.refresh()
    assert RetentionCleanup(short, search).remove()["tombstones"] == 1
    again = Work(short, search, work.encoder)
    again.run.load()
    with pytest.raises(Conflict, match="reindex_too_old"):
        again.settle(again.follow())
    # the control: without the check, searches find the deleted document again
    work.run.load()
    follower = work.follow()
    work.settle(follower)
    work.run.swap(follower)
    assert work.stored(work.run.active(), "a") is not None


def test_a_late_incompatible_document_is_dead_and_not_gone(
    journal: Journal, work: Work, search: SyncSearchClient
) -> None:
    follower = work.begin(GenerationChanges(fields={"year": "date"}))
    work.settle(follower)
    decide_swap(follower)
    journal.put({"late": "about 1990"})
    source = {"text": "about 1990", "state": "pending", "version": 9, "metadata": {"year": 1990.5}, "job": "j"}
    from services.opensearch.bulk import Write

    (verdict,) = write_bulk(search, [Write(journal.generation.alias, "misfit", 9 * 1024, source)], 10_000, 5)
    assert verdict.outcome is WriteOutcome.STORED
    finish_swap(follower)
    found = work.stored(work.run.active(), "misfit")
    assert found is not None and (found["state"], found["text"]) == ("dead", "about 1990")
    assert work.stored(work.run.active(), "late") is not None


def test_a_retried_document_is_not_dead_again_after_the_swap(
    journal: Journal, work: Work, search: SyncSearchClient
) -> None:
    journal.put({"a": "words"}, version=1)
    write_bulk(search, [dead_write(journal.generation, journal.stored("a"), "code", "reason")], 10_000, 5)
    follower = work.begin(PRUNED)
    work.settle(follower)
    assert (work.stored(work.run.current_record.target, "a") or {})["state"] == "dead"
    from services.opensearch.journal import retry_write

    write_bulk(search, [retry_write(journal.generation, journal.stored("a"), 60)], 10_000, 5)
    work.settle(follower)
    work.run.swap(follower)
    assert (work.stored(work.run.active(), "a") or {})["state"] == "encoded", "it was tried once more, with success"


@pytest.mark.parametrize("again", [False, True])
def test_a_document_written_again_before_the_swap_keeps_the_vectors_that_the_target_has(
    journal: Journal, work: Work, *, again: bool
) -> None:
    """Search by meaning finds it in the new generation while it waits for its encoder."""
    journal.put({"a": "words"}, version=1)
    follower = work.begin(CUT)
    work.settle(follower)
    target = work.run.current_record.target
    assert (work.stored(target, "a") or {})["state"] == "encoded"
    follower.dispatch = lambda ids: None  # no worker comes before the swap
    for version in (2, 3) if again else (2,):
        journal.put({"a": f"changed {version}"}, version=version)
        journal.refresh()
        follower.catch_up()
    found = work.stored(target, "a") or {}
    assert (found["state"], found["text"]) == ("pending", "changed 3" if again else "changed 2")
    earlier = found["earlier"]
    assert isinstance(earlier, dict)
    assert (earlier["vectors"]["version"], len(earlier["vectors"]["windows"])) == (1, 1)


@pytest.fixture
def queue(settings: Settings) -> Iterator[Publisher]:
    with closing(Publisher(settings.redis_url)) as one:
        yield one


def rescued(search: SyncSearchClient, queue: Publisher, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("indexer.reindex.run.ABANDONED_SECONDS", -1.0)
    search.send(Call("POST", f"/{IndexNames(settings.index_prefix).reindexes}/_refresh"))
    return finish_abandoned_swaps(search, queue, settings)


def test_an_index_that_was_made_again_is_not_made_read_only(
    journal: Journal, work: Work, search: SyncSearchClient, queue: Publisher, settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    follower = work.begin(CUT)
    work.settle(follower)
    decide_swap(follower)
    search.send(delete_generations_call([work.run.current_record.source, work.run.current_record.target]))
    names = IndexNames(settings.index_prefix)
    fresh = new_generation(
        names, "papers", 1, journal.generation.spec, read_manifest(resolve_model_directory("standin"))
    )
    search.send(create_generation_call(fresh, settings, [names.alias("papers")]))
    assert rescued(search, queue, settings, monkeypatch) == 0
    journal.generation = fresh
    journal.put({"a": "words"})
    assert ReindexRecords(search, settings).load("papers") is None


def test_a_target_that_somebody_deleted_gives_the_old_generation_back(
    journal: Journal, work: Work, search: SyncSearchClient, queue: Publisher, settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    follower = work.begin(CUT)
    work.settle(follower)
    decide_swap(follower)
    search.send(Call("PUT", f"/{work.run.current_record.source.physical}/_block/write"))
    search.send(delete_generations_call([work.run.current_record.target]))
    assert rescued(search, queue, settings, monkeypatch) == 0
    journal.put({"a": "words"})
    assert work.run.active().number == 1
