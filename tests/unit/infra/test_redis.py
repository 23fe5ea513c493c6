"""Command line of the local Redis."""

from pathlib import Path

from infra.redis import redis_command


def test_redis_listens_on_loopback_and_evicts_nothing() -> None:
    line = " ".join(redis_command("redis-server", port=5, data=Path("/d"), databases=16))
    for part in ("--bind 127.0.0.1", "--port 5", "--appendonly yes", "--maxmemory-policy noeviction", "--dir /d"):
        assert part in line
