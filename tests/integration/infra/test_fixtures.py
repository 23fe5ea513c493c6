"""The fixtures provide real servers, and each test has its own indexes and database."""

import httpx
import redis

from services.settings import Settings


def test_settings_point_at_live_servers(settings: Settings) -> None:
    health = httpx.get(f"{settings.opensearch_url}/_cluster/health", timeout=30, trust_env=False).json()
    assert health["status"] == "green"
    with redis.Redis.from_url(settings.redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")
    assert httpx.put(f"{settings.opensearch_url}/{settings.index_prefix}-left", timeout=30, trust_env=False).is_success


def test_nothing_of_the_test_before_is_seen(settings: Settings) -> None:
    listed = httpx.get(f"{settings.opensearch_url}/_cat/indices?format=json", timeout=30, trust_env=False).json()
    assert not [row for row in listed if row["index"].endswith("-left")]
    with redis.Redis.from_url(settings.redis_url) as client:
        assert client.dbsize() == 0


def test_the_queue_keeps_what_it_was_given(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        policy = client.config_get("maxmemory-policy", "appendonly", "bind")
    assert policy == {"maxmemory-policy": "noeviction", "appendonly": "yes", "bind": "127.0.0.1"}
