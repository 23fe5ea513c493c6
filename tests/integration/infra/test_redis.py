"""A real Redis: started, found again, stopped, and every kind of failure."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import redis

from infra.local_servers import LocalSettings
from infra.redis import RedisConfig, RedisServer, start_redis
from services.directories import child_account, temporary_state_directory
from services.errors import ConfigurationError


@pytest.fixture
def config(local_settings: LocalSettings) -> Iterator[RedisConfig]:
    with temporary_state_directory(child_account(local_settings.run_as)) as directory:
        yield replace(RedisConfig.of(local_settings), root=directory / "redis", data=None, port=0, tied=True)


def test_what_was_pushed_survives_a_kill(config: RedisConfig) -> None:
    server = start_redis(config)
    assert psutil.Process(server.child.pid).uids().effective != 0 or child_account(config.run_as) is None
    with redis.Redis.from_url(server.url) as client:
        client.config_set("appendfsync", "always")
        client.rpush("queue", "one", "two")
    psutil.Process(server.child.pid).kill()
    psutil.wait_procs([psutil.Process(server.child.pid)], timeout=5)
    assert RedisServer.find(config.root) is None
    with start_redis(config) as again, redis.Redis.from_url(again.url) as client:
        assert client.lrange("queue", 0, -1) == [b"one", b"two"]


def test_the_one_that_runs_is_found_and_not_started_twice(config: RedisConfig) -> None:
    with start_redis(config) as server:
        assert start_redis(config) == server
        found = RedisServer.find(config.root)
        assert found is not None
        assert found.url == server.url
    assert RedisServer.find(config.root) is None


def test_a_taken_port_is_named(config: RedisConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigurationError, match=str(port)) as caught:
            start_redis(replace(config, port=port))
    assert caught.value.code == "port_in_use"
    assert "SPARSEWELL_REDIS_PORT" in caught.value.detail


def test_without_redis_server_it_says_what_to_install(
    config: RedisConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="apt-get install redis-server") as caught:
        start_redis(config)
    assert caught.value.code == "no_redis_server"


def test_one_that_dies_shows_its_last_words(config: RedisConfig) -> None:
    (config.root / "data").mkdir(parents=True)
    (config.root / "data" / "appendonlydir").write_text("a file where Redis wants a directory")
    with pytest.raises(Exception, match="appendonlydir") as caught:
        start_redis(config)
    assert getattr(caught.value, "code", None) == "redis_died"
