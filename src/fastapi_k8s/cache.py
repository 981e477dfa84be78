"""The Redis cache: optional, and never in the way. PostgreSQL can always answer instead."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from secrets import token_bytes
from time import monotonic
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, RedisError

from .settings import Settings

logger = logging.getLogger(__name__)
PAUSE = 1.0  # seconds that reads pass Redis by after it failed, lest they all wait for it
LEASE_TTL = 10  # seconds
VALUE, LEASE = b"=", b"?"
FILL = """if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end"""


class Cache:
    """Values by key, read through to a loader (docs/decisions/0002-cache-with-leases.md).

    A reader that misses takes a lease, and fills only under it. A writer's drop() takes it away.
    """

    def __init__(self, redis: Redis | None, ttl: int) -> None:
        self._redis = redis
        self._ttl = ttl
        self._paused_until = 0.0

    async def read(self, key: str, load: Callable[[], Awaitable[bytes]]) -> bytes:
        """The value of `key`, from Redis or else from `load`."""
        if self._redis is None or self._paused():
            return await load()
        lease = LEASE + token_bytes(16)
        found = await self._ask(self._redis.set(key, lease, nx=True, get=True, ex=LEASE_TTL))
        if found and found.startswith(VALUE):
            return bytes(found.removeprefix(VALUE))
        value = await load()
        if not found and not self._paused():
            await self._ask(self._redis.eval(FILL, 1, key, lease, VALUE + value, self._ttl))
        return value

    async def drop(self, key: str) -> None:
        """Forget `key`: after a commit, before it is acknowledged. If it fails, the TTL ends it."""
        if self._redis is not None:  # even if paused: other processes may be reading from it
            await self._ask(self._redis.delete(key))

    async def status(self) -> str:
        """`ok`, `unreachable`, or `disabled`."""
        if self._redis is None:
            return "disabled"
        return "ok" if await self._ask(self._redis.ping()) else "unreachable"

    async def _ask(self, command: Awaitable[Any]) -> Any:
        try:
            return await command
        except (RedisError, OSError) as error:
            if not self._paused():
                logger.warning("cache failed", extra={"fields": {"error": type(error).__name__}})
            self._paused_until = monotonic() + PAUSE

    def _paused(self) -> bool:
        return monotonic() < self._paused_until


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncIterator[Cache]:
    """A cache that connects at first use; one that is always empty without REDIS_URL."""
    url, limit = settings.redis_url.get_secret_value(), settings.redis_timeout
    if not url:
        yield Cache(None, settings.cache_ttl)
        return
    pool = BlockingConnectionPool.from_url(
        url, timeout=limit, socket_timeout=limit, socket_connect_timeout=limit
    )
    async with Redis.from_pool(pool) as redis:
        yield Cache(redis, settings.cache_ttl)
