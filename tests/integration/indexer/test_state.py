"""The sweeper's metrics of indexes, and the generations in `GET /v1/status`, during a reindex."""

from contextlib import closing

import httpx
import orjson
import pytest

from indexer.encode_task import run_encode
from indexer.queue_metrics import ServiceStateCollector
from indexer.runtime import Runtime
from models.encoder import Encoder
from services.documents.document import Document
from services.index_spec import EncoderIdentity, IndexNames
from services.opensearch.bulk import WriteOutcome, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import (
    create_generation_call,
    create_index_body,
    delete_generations_call,
    new_generation,
    refresh_call,
)
from services.opensearch.journal import raw_write
from services.opensearch.reindex import ReindexRecord, ReindexRecords, copy_write
from services.queue.messages import Publisher
from services.queue.worker_registry import WorkerRegistry
from services.settings import Settings
from tests.integration.indexer.journalled import Journal

COUNTED, UP = "sparsewell_backlog_counted", "sparsewell_dependency_up"
PENDING, AGE = "sparsewell_pending_documents", "sparsewell_pending_oldest_age_seconds"


def test_a_backlog_that_cannot_be_counted_is_unknown_and_opensearch_is_up(
    journal: Journal, settings: Settings, search: SyncSearchClient, publisher: Publisher,
    standin: Encoder, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A red shard, or more generations than one answer holds: neither is shown as no documents that wait."""
    journal.put({"a": "one"})
    other = new_generation(IndexNames(settings.index_prefix), "others", 1, journal.generation.spec, standin.manifest)
    search.send(create_generation_call(other, settings, [other.alias]))
    write_bulk(search, [raw_write(other, Document(id="b", text="two"), "j", 1, 60)], 1024**2, 10)
    red = new_generation(IndexNames(settings.index_prefix), "red", 1, journal.generation.spec, standin.manifest)
    with closing(WorkerRegistry(settings.redis_address)) as registry:
        state = ServiceStateCollector(settings, search, publisher, registry)

        def sample() -> dict[str, list[float]]:
            for one in (journal.generation, other):
                search.send(refresh_call(one.physical))
            state.sample()
            families = {family.name: family.samples for family in state.collect()}
            up = [one.value for one in families[UP] if one.labels["dependency"] == "opensearch"]
            return {UP: up} | {name: [one.value for one in families[name]] for name in (COUNTED, PENDING)}

        assert sample() == {UP: [1], COUNTED: [1], PENDING: [1, 1]}
        with monkeypatch.context() as one_only:
            one_only.setattr("services.opensearch.journal.MAX_GENERATIONS", 1)
            assert sample() == {UP: [1], COUNTED: [0], PENDING: []}
        body = create_index_body(red, settings, [red.alias])
        body["settings"]["index.routing.allocation.require._name"] = "no such node"
        params = {"wait_for_active_shards": "0"}
        search.send(Call("PUT", f"/{red.physical}", orjson.dumps(body), params))
        assert sample() == {UP: [1], COUNTED: [0], PENDING: []}
        search.send(delete_generations_call([red]))
        assert sample()[COUNTED] == [1]


def test_what_a_reindexing_carries_to_another_encoder_is_no_stale_document(
    journal: Journal, settings: Settings, search: SyncSearchClient, publisher: Publisher, runtime: Runtime,
    standin: Encoder,
    api: httpx.Client,
) -> None:  # fmt: skip
    """The document keeps its creation time, perhaps a year ago, and its vectors in the old generation still find it."""
    journal.put({"a": "one"})
    assert run_encode(runtime, journal.message("a"), redelivered=False) == {"encoded": 1}
    old, names = journal.generation, IndexNames(settings.index_prefix)
    new = new_generation(names, "papers", 2, old.spec, standin.manifest)
    new = new.model_copy(update={"encoder": EncoderIdentity(name="other", fingerprint="0" * 16)})
    search.send(create_generation_call(new, settings, []))
    (verdict,) = write_bulk(search, [copy_write(old, new, journal.stored("a"), 60)], 1024**2, 10)
    assert verdict.outcome is WriteOutcome.STORED

    with closing(WorkerRegistry(settings.redis_address)) as registry:
        state = ServiceStateCollector(settings, search, publisher, registry)

        def seen() -> dict[tuple[str, str], float]:
            for one in (old, new):
                search.send(refresh_call(one.physical))
            state.sample()
            samples = [sample for family in state.collect() for sample in family.samples]
            return {(one.name, one.labels["generation"]): one.value for one in samples if "generation" in one.labels}

        now = seen()
        assert (now[PENDING, "1"], now[AGE, "1"], now[PENDING, "2"]) == (0, 0, 1)
        assert (AGE, "2") not in now
        journal.put({"b": "two"})
        assert seen()[AGE, "1"] > 0, "the control: what searches wait for"

    record = ReindexRecord(index="papers", source=old, target=new, copied=3, incompatible=1)
    ReindexRecords(search, settings).begin(record)
    search.send(refresh_call(names.reindexes))
    (index,) = api.get("/v1/status").json()["indexes"]
    told = {one["state"]: (one["pending"], one["oldest_pending_seconds"] is None) for one in index["generations"]}
    assert told == {"searched": (1, False), "building": (1, True)}
    reindex = index["reindex"]
    assert (reindex["copied"], reindex["incompatible"]) == (3, 1)
    assert (reindex["carried"], reindex["misfits"]) == (3, 1), "the former names"
