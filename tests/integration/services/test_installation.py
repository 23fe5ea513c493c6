"""A Redis belongs to one installation: a process of another one sends it no message and takes none."""

import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from celery.exceptions import Reject
from redis import Redis
from starlette.testclient import TestClient
from typer.testing import CliRunner

from cli.main import app as cli
from indexer.celery_app import require_own_redis
from indexer.runtime import Runtime, WorkerSettings
from indexer.sweeper import Sweeper
from infra.ports import find_free_port
from infra.stack import settings_environment
from query_api.app import create_app
from services.errors import BackendUnavailable, ConfigurationError
from services.opensearch.client import SyncSearchClient
from services.queue.installation import InstallationClaim, claim_redis
from services.queue.lanes import INGEST_QUEUE, interactive_queue
from services.queue.messages import Publisher
from services.settings import Settings

NODE_AWAY = f"http://127.0.0.1:{find_free_port()}"


@pytest.fixture
def broker(settings: Settings) -> Iterator[Redis]:
    with closing(Redis.from_url(settings.redis_url)) as client:
        yield client


@pytest.fixture
def other(settings: Settings) -> Settings:
    """Return the settings of another installation that reaches the same Redis."""
    return settings.model_copy(update={"index_prefix": f"t{secrets.token_hex(6)}"})


def test_the_first_process_marks_redis_and_its_neighbours_agree(settings: Settings, broker: Redis) -> None:
    claim_redis(settings)
    mark = broker.get("sparsewell:installation")
    assert mark is not None
    assert mark.decode().startswith(f"{settings.index_prefix}@")
    claim_redis(settings)
    assert broker.get("sparsewell:installation") == mark


def test_another_prefix_or_another_cluster_is_refused(settings: Settings, other: Settings, broker: Redis) -> None:
    claim_redis(settings)
    with pytest.raises(ConfigurationError, match="foreign_redis") as refused:
        claim_redis(other)
    assert settings.index_prefix in refused.value.detail
    broker.set("sparsewell:installation", f"{settings.index_prefix}@another-cluster")
    with pytest.raises(ConfigurationError, match="foreign_redis"):
        claim_redis(settings)


def test_a_load_through_the_queue_sends_nothing_to_another_installation(
    settings: Settings, other: Settings, broker: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_redis(other)
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": "a", "text": "words"}\n')
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    result = CliRunner().invoke(cli, ["load", str(file), "--index", "docs", "--via", "queue", "--no-wait"])
    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.code == "foreign_redis"
    assert not broker.exists(INGEST_QUEUE)
    # The control: the installation that Redis belongs to may send.
    for name, value in settings_environment(other).items():
        monkeypatch.setenv(name, value)
    sent = CliRunner().invoke(cli, ["load", str(file), "--index", "docs", "--via", "queue", "--no-wait"])
    assert sent.exit_code == 0, sent.output
    assert broker.llen(INGEST_QUEUE) == 1


@pytest.mark.parametrize("command", ["api", "worker", "sweeper"])
def test_a_process_refuses_to_start(
    settings: Settings, other: Settings, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_redis(other)
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(cli, [command, *(["--port", "0"] if command == "api" else [])])
    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.code == "foreign_redis"
    assert "sparsewell adopt-redis" in result.exception.detail


def test_it_can_be_adopted(settings: Settings, other: Settings, broker: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    claim_redis(other)
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert CliRunner().invoke(cli, ["adopt-redis"], catch_exceptions=False).exit_code == 0
    claim_redis(settings)
    with pytest.raises(ConfigurationError, match="foreign_redis"):
        claim_redis(other)


def test_an_api_that_started_without_redis_sends_nothing_to_a_foreign_one(
    settings: Settings, other: Settings, broker: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """It journals documents, as without Redis, and the sweeper of its own installation finds them."""
    claim_redis(other)
    with TestClient(create_app(settings)) as api:
        api.put("/v1/indexes/docs")
        answer = api.put("/v1/indexes/docs/documents/a", json={"text": "word"})
        assert (answer.status_code, answer.json()["queued"]) == (202, False)
        assert "foreign_redis" in caplog.text
        assert broker.llen(interactive_queue(settings.encoder)) == 0
        broker.delete("sparsewell:installation")
        assert api.put("/v1/indexes/docs/documents/a", json={"text": "words"}).json()["queued"] is True
        assert broker.llen(interactive_queue(settings.encoder)) == 1


def test_a_sweeper_enqueues_nothing_in_a_foreign_redis(settings: Settings, other: Settings, broker: Redis) -> None:
    with closing(SyncSearchClient(settings)) as search, closing(Publisher(settings.redis_address)) as publisher:
        sweeper = Sweeper(settings, search, publisher)
        sweeper.sweep()
        broker.flushdb()
        sweeper.sweep()
        assert broker.get("sparsewell:installation"), "a Redis that lost its data is marked again"
        broker.flushdb()
        claim_redis(other)
        with pytest.raises(ConfigurationError, match="foreign_redis"):
            sweeper.sweep()


def test_without_a_backend_a_process_starts_and_claims_later(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    away = settings.model_copy(update={"opensearch_url": NODE_AWAY})
    claim_redis(away)
    claim_redis(settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{find_free_port()}/0"}))
    assert caplog.text.count("unknown yet") == 2
    with (
        closing(SyncSearchClient(away)) as search,
        closing(Publisher(settings.redis_address)) as publisher,
        pytest.raises(BackendUnavailable),
    ):
        InstallationClaim(away, publisher).claim(search)
    with pytest.raises(BackendUnavailable):
        claim_redis(away, replace=True)


def test_a_worker_that_started_without_opensearch_compares_before_its_first_message(
    settings: Settings, other: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.celery_app.UNCLAIMED_PAUSE_SECONDS", 0.0)
    claim_redis(settings)
    for foreign in (other, settings.model_copy(update={"opensearch_url": NODE_AWAY})):
        with pytest.raises(Reject) as returned:
            require_own_redis(Runtime(foreign, WorkerSettings()))
        assert returned.value.requeue
    own = Runtime(settings, WorkerSettings())
    require_own_redis(own)
    assert own.claim.is_verified


def test_a_full_redis_stops_no_worker(settings: Settings, broker: Redis) -> None:
    """Finished work makes room, and a mark that exists is read."""
    claim_redis(settings)
    before = broker.config_get("maxmemory")["maxmemory"]
    broker.config_set("maxmemory", "1")
    try:
        own = Runtime(settings, WorkerSettings())
        require_own_redis(own)
        assert own.claim.is_verified
        broker.delete("sparsewell:installation")
        require_own_redis(Runtime(settings, WorkerSettings()))
    finally:
        broker.config_set("maxmemory", before)
