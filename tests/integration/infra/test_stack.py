"""Start and stop the whole service around the test run's OpenSearch."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from infra.local_servers import LocalSettings
from infra.ports import find_free_port
from infra.redis import RedisConfig, start_redis
from infra.stack import Stack, running_stack
from services.directories import child_account, temporary_state_directory
from services.errors import SparsewellError
from services.settings import Settings

OURS = ["redis", "worker", "sweeper", "api"]


@pytest.fixture
def local(local_settings: LocalSettings, opensearch_url: str) -> Iterator[LocalSettings]:
    """Return a state directory and ports of this test. The stack treats OpenSearch as an external server."""
    with temporary_state_directory(child_account(local_settings.run_as)) as directory:
        local = local_settings.model_copy(
            update={
                "opensearch_url": opensearch_url,
                "redis_url": None,
                "redis_port": find_free_port(),
                "redis_data_dir": None,
                "state_dir": directory,
                "start_timeout": 120.0,
                "stop_timeout": 20.0,
            }
        )
        yield local
        Stack(local, Settings()).down(print)


def running(stack: Stack) -> list[str]:
    return [row.name for row in stack.status() if row.running]


def test_up_and_down(local: LocalSettings, settings: Settings) -> None:
    stack = Stack(local, settings)
    said: list[str] = []
    assert stack.up(said.append, tied=True) == OURS
    assert any("OPENSEARCH_URL" in line for line in said)
    assert running(stack) == OURS
    assert {row.name for row in stack.status() if row.external} == {"opensearch"}
    ready = httpx.get(f"{stack.api_url}/readyz", timeout=30, trust_env=False)
    assert ready.json()["status"] == "ready"

    assert Stack(local, settings).up(said.append) == [], "what runs is not started again"

    assert Stack(local, settings).down(said.append) == ["api", "sweeper", "worker", "redis"]
    assert running(stack) == []
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{stack.api_url}/healthz", timeout=30, trust_env=False)
    assert httpx.get(local.opensearch_url or "", timeout=30, trust_env=False).is_success, (
        "somebody's server is left alone"
    )


def test_a_service_starts_beside_an_index_of_an_encoder_that_is_gone(
    local: LocalSettings, settings: Settings, opensearch_url: str
) -> None:
    gone = {"sparsewell": {"index": "old", "encoder": {"name": "gone", "fingerprint": "f" * 16}}}
    body = {"mappings": {"_meta": gone}, "aliases": {f"{settings.index_prefix}-old": {}}}
    physical = f"{opensearch_url}/{settings.index_prefix}-old.g000001"
    httpx.put(physical, json=body, timeout=30, trust_env=False).raise_for_status()
    stack = Stack(local.model_copy(update={"start_timeout": 30.0}), settings)
    assert stack.up(print, tied=True) == OURS
    ready = httpx.get(f"{stack.api_url}/readyz", timeout=30, trust_env=False).json()
    assert (ready["status"], ready["checks"]["query_tables"]) == ("ready", "encoder_mismatch")
    stack.down(print)


def test_a_taken_port_stops_what_was_started(local: LocalSettings, settings: Settings) -> None:
    stack = Stack(local, settings)
    with socket.create_server(("127.0.0.1", settings.api_port)), pytest.raises(SparsewellError) as caught:
        stack.up(print, tied=True)
    assert caught.value.code == "port_in_use"
    assert "SPARSEWELL_API_PORT" in caught.value.detail
    assert running(stack) == []


def test_a_part_that_ends_shows_its_log_and_the_rest_is_stopped(local: LocalSettings, settings: Settings) -> None:
    stack = Stack(local, settings.model_copy(update={"encoder": "no-such-encoder"}))
    with pytest.raises(SparsewellError) as caught:
        stack.up(print, tied=True)
    assert caught.value.code == "part_died"
    assert "unknown_encoder" in caught.value.detail, "the end of its log is shown"
    assert running(stack) == []


@pytest.mark.parametrize("end", ["return", "error", "interrupt", "terminate"])
def test_nothing_that_was_started_outlives_the_block(local: LocalSettings, settings: Settings, end: str) -> None:
    redis = start_redis(RedisConfig.of(local))
    ends = {"error": RuntimeError, "interrupt": KeyboardInterrupt, "terminate": SystemExit}
    with suppress(*ends.values()), running_stack(local, settings, print) as stack:
        assert running(stack) == OURS
        if end == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
        elif end != "return":
            raise ends[end]
    assert running(stack) == ["redis"], "what ran before goes on running"
    redis.stop()


def test_what_is_to_be_kept_is_kept(local: LocalSettings, settings: Settings) -> None:
    with running_stack(local, settings, print, keep=True) as stack:
        pass
    assert running(stack) == OURS
    stack.down(print)
    assert running(stack) == []
