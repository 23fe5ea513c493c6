"""A real Redis on this machine: `redis-server` from the PATH, with what a queue needs of it."""

from infra.redis.server import RedisConfig, RedisServer, find_redis, start_redis, temporary_redis

__all__ = ["RedisConfig", "RedisServer", "find_redis", "start_redis", "temporary_redis"]
