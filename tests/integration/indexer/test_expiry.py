"""Real sweepers remove expired tombstones and job records, except those that have changed meanwhile."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest

from indexer.retention import (
    RetentionCleanup,
    expired_jobs_call,
    expired_tombstones_call,
    read_expired,
    read_removal_counts,
    remove_expired_call,
)
from indexer.sweeper import MappingUpgrade
from infra.processes import ChildProcess
from services.dates import now_ms
from services.errors import NotFound
from services.index_spec import IndexNames
from services.opensearch.bulk import WriteOutcome, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import LATER_FIELDS, create_generation_call
from services.opensearch.jobs import JobRecord
from services.opensearch.journal import dead_write, tombstone_write
from services.settings import Settings
from tests.integration.indexer import journalled
from tests.integration.indexer.journalled import Journal, log_of

Eventually = Callable[[Callable[[], object], float, str], None]
Start = Callable[..., ChildProcess]
SECOND = 1 / 86400  # days


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"tombstone_days": SECOND, "job_days": SECOND, "idempotency_hours": SECOND * 24, "sweep_interval": 0.2}
    )


@pytest.fixture
def expiry(settings: Settings, search: SyncSearchClient) -> RetentionCleanup:
    return RetentionCleanup(settings, search)


def delete(journal: Journal, search: SyncSearchClient, *names: str, version: int, age: float = 3600) -> None:
    """Write the tombstones of the API for deletes some seconds ago."""
    writes = [tombstone_write(journal.generation, name, version) for name in names]
    writes = [replace(one, source=one.source | {"deleted_at": now_ms() - int(age * 1000)}) for one in writes]
    assert {verdict.outcome for verdict in write_bulk(search, writes, 1024**2, 10)} == {WriteOutcome.STORED}
    journal.refresh()


def ids(journal: Journal, search: SyncSearchClient) -> list[str]:
    """Return all ids in the generation, as searches see it."""
    journal.refresh()
    answer = search.send(Call("GET", f"/{journal.generation.physical}/_search", params={"size": 1000}))
    return sorted(hit["_id"] for hit in answer["hits"]["hits"])


def set_index(search: SyncSearchClient, journal: Journal, **settings: Any) -> None:
    path = f"/{journal.generation.physical}/_settings"
    search.send(Call("PUT", path, json.dumps({"index": settings}).encode()))


def test_a_sweeper_removes_tombstones_after_the_window_and_nothing_else(
    api: httpx.Client, journal: Journal, search: SyncSearchClient, sweeper: ChildProcess, eventually: Eventually
) -> None:
    path = "/v1/indexes/papers/documents/"
    for name, version in (("gone", 1), ("back", 1), ("there", 1)):
        assert api.put(path + name, json={"text": "words", "version": version}).status_code == 202
    assert api.delete(path + "gone", params={"version": 2}).status_code == 204
    assert api.delete(path + "back", params={"version": 2}).status_code == 204
    assert api.put(path + "back", json={"text": "again", "version": 3}).status_code == 202
    eventually(lambda: ids(journal, search) == ["back", "there"], 60, "the tombstone is removed")
    assert api.get("/v1/indexes/papers").json()["documents"] == {"pending": 2, "encoded": 0, "dead": 0, "deleted": 0}
    assert api.get(path + "gone").status_code == 404
    eventually(lambda: "1 tombstones" in log_of(sweeper), 60, "the sweeper has said so")
    # OpenSearch remembers the version of a deleted document for a minute.
    late = api.put(path + "gone", json={"text": "words", "version": 1})
    assert (late.status_code, late.json()["code"]) == (409, "stale_version")


def test_what_the_window_is_for(
    api: httpx.Client, journal: Journal, search: SyncSearchClient, expiry: RetentionCleanup, eventually: Eventually
) -> None:
    """A stale write restores the document only after the window and gc_deletes have both passed."""
    set_index(search, journal, gc_deletes="1ms")
    path = "/v1/indexes/papers/documents/a"
    delete(journal, search, "a", version=2, age=0)
    assert api.put(path, json={"text": "stale", "version": 1}).status_code == 409
    time.sleep(1.1)  # the window of this test
    assert expiry.remove()["tombstones"] == 1

    def is_back() -> bool:
        journal.refresh()  # OpenSearch forgets the deletes
        return api.put(path, json={"text": "stale", "version": 1}).status_code == 202

    eventually(is_back, 60, "OpenSearch has forgotten the delete")


def test_what_came_back_after_it_was_found_is_kept(journal: Journal, search: SyncSearchClient) -> None:
    physical = journal.generation.physical
    delete(journal, search, "written", "deleted", "zero", version=0)
    delete(journal, search, "untouched", version=2)
    found = read_expired(search.send(expired_tombstones_call(physical, now_ms(), 10)))
    assert len(found) == 4
    journal.put({"written": "here again"}, version=3)
    delete(journal, search, "deleted", version=3, age=0)
    done = read_removal_counts(search.send(remove_expired_call(journal.generation.write_alias, found)))
    assert done == {"removed": 2, "changed": 2}
    assert ids(journal, search) == ["deleted", "written"]
    assert journal.stored("written").source["text"] == "here again"
    # A second removal of the same records is not an error.
    assert read_removal_counts(search.send(remove_expired_call(journal.generation.write_alias, found))) == {
        "changed": 4
    }


def test_writes_beside_a_running_sweeper_are_never_lost(
    journal: Journal, search: SyncSearchClient, expiry: RetentionCleanup
) -> None:
    """Documents are deleted and written again continuously, and tombstones expire at once. No document is missing."""
    names = [f"d{n:02}" for n in range(40)]
    delete(journal, search, *names, version=1)
    assert expiry.remove() == {"tombstones": 40}  # so a pass has tombstones to remove
    with ThreadPoolExecutor(2) as pool:
        for version in range(3, 30, 2):
            delete(journal, search, *names, version=version)
            passes = [pool.submit(expiry.remove) for _ in range(2)]
            journal.put(dict.fromkeys(names, f"version {version + 1}"), version=version + 1)
            for one in passes:
                one.result()
            assert {journal.stored(name).source["text"] for name in names} == {f"version {version + 1}"}
    assert ids(journal, search) == names


def test_of_two_at_once_each_tombstone_is_removed_by_one(
    journal: Journal, search: SyncSearchClient, expiry: RetentionCleanup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.retention.EXPIRY_PAGE_RECORDS", 50)  # and more than a page in one pass
    delete(journal, search, *[f"d{n}" for n in range(220)], version=1)
    journal.put({"alive": "words"})
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(lambda _: expiry.remove()["tombstones"], range(2)))
    assert sum(counts) == 220 - len(ids(journal, search)) + 1
    expiry.remove()
    assert ids(journal, search) == ["alive"]


def test_young_tombstones_stay(settings: Settings, journal: Journal, search: SyncSearchClient) -> None:
    expiry = RetentionCleanup(settings.model_copy(update={"tombstone_days": 7.0, "job_days": 30.0}), search)
    delete(journal, search, "young", version=1, age=6.9 * 86400)
    delete(journal, search, "old", version=1, age=7.1 * 86400)
    assert expiry.remove() == {"tombstones": 1}
    assert ids(journal, search) == ["young"]


def test_a_generation_that_is_not_written_any_more_is_left_alone(
    journal: Journal, search: SyncSearchClient, expiry: RetentionCleanup
) -> None:
    physical = journal.generation.physical
    delete(journal, search, "a", version=1)
    found = read_expired(search.send(expired_tombstones_call(physical, now_ms(), 10)))
    retire = {"actions": [{"remove": {"index": physical, "alias": journal.generation.write_alias}}]}
    search.send(Call("POST", "/_aliases", json.dumps(retire).encode()))
    assert not expiry.remove()
    assert ids(journal, search) == ["a"]
    # The generation was retired before the delete: nothing is deleted, and no index appears under the alias's name.
    with suppress(NotFound):
        assert read_removal_counts(search.send(remove_expired_call(journal.generation.write_alias, found))) == {
            "changed": 1
        }
    assert ids(journal, search) == ["a"]
    with pytest.raises(NotFound):
        search.send(Call("GET", f"/{journal.generation.write_alias}/_settings"))


def test_an_index_that_takes_no_writes_is_no_trouble(
    journal: Journal, search: SyncSearchClient, expiry: RetentionCleanup
) -> None:
    delete(journal, search, "a", version=1)
    set_index(search, journal, **{"blocks.write": True})
    assert not expiry.remove()
    set_index(search, journal, **{"blocks.write": None})
    assert expiry.remove() == {"tombstones": 1}


def test_old_job_records_are_removed_and_what_was_counted_meanwhile_stays(
    settings: Settings, journal: Journal, search: SyncSearchClient, expiry: RetentionCleanup
) -> None:
    names = IndexNames(settings.index_prefix)
    hour_ago = now_ms() - 3_600_000
    for job, created in (("old", hour_ago), ("busy", hour_ago), ("new", now_ms())):
        search.send(JobRecord(job, "papers", created).save_call(names))
    search.send(Call("POST", f"/{names.jobs}/_refresh"))
    found = read_expired(search.send(expired_jobs_call(names.jobs, hour_ago + 1, 10)))
    assert sorted(one.id for one in found) == ["busy", "old"]
    search.send(JobRecord("busy", "papers").save_call(names))
    assert read_removal_counts(search.send(remove_expired_call(names.jobs, found))) == {"removed": 1, "changed": 1}
    search.send(JobRecord("older", "papers", hour_ago).save_call(names))
    search.send(Call("POST", f"/{names.jobs}/_refresh"))
    assert expiry.remove() == {"job records": 1}
    search.send(Call("POST", f"/{names.jobs}/_refresh"))
    answer = search.send(Call("GET", f"/{names.jobs}/_search"))
    assert sorted(hit["_id"] for hit in answer["hits"]["hits"]) == ["busy", "new"]


def test_without_a_jobs_index_and_with_redis_away_tombstones_expire(
    settings: Settings, journal: Journal, search: SyncSearchClient, start: Start, eventually: Eventually
) -> None:
    delete(journal, search, "a", version=1)
    search.send(Call("DELETE", f"/{IndexNames(settings.index_prefix).jobs}"))
    sweeper = start("-m", "cli.main", "sweeper", SPARSEWELL_REDIS_URL="redis://127.0.0.1:9/0")
    eventually(lambda: ids(journal, search) == [], 60, "the tombstone is removed")
    assert "not sweeping" in log_of(sweeper)
    assert "not removing" not in log_of(sweeper)


def test_generations_of_older_versions_learn_the_later_fields(
    settings: Settings, search: SyncSearchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(*arguments: Any) -> Call:
        call = create_generation_call(*arguments)
        body = json.loads(call.body or b"")
        for name in LATER_FIELDS:
            del body["mappings"]["properties"][name]
        return replace(call, body=json.dumps(body).encode())

    monkeypatch.setattr(journalled, "create_generation_call", create)
    journal = Journal(settings, search)
    journal.put({"a": "words"})
    dead = dead_write(journal.generation, journal.stored("a"), "encoding_failed", "RuntimeError")
    (verdict,) = write_bulk(search, [dead], 1024, 10)
    assert verdict.outcome is WriteOutcome.REFUSED  # so they are needed
    later = MappingUpgrade(settings, search)
    assert later.add() == {"generations": 1}
    assert not later.add()
    (verdict,) = write_bulk(search, [dead], 1024, 10)
    assert verdict.outcome is WriteOutcome.STORED
