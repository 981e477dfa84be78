"""The Redis cache. It is optional: if Redis fails, reads call `load` instead."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from secrets import token_bytes
from time import monotonic
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, RedisError

from .settings import Settings

logger = logging.getLogger(__name__)

CIRCUIT_OPEN_SECONDS = 1.0
"""How long reads skip Redis after a failure. Without it, each would wait for the timeout."""

LEASE_SECONDS = 10
"""How long a lease blocks other readers from storing, if its holder never stores a value."""

VALUE_PREFIX = b"="
LEASE_PREFIX = b"?"
STORE_UNDER_LEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
end
"""


class Cache:
    """A read-through cache with leases (docs/decisions/0002-cache-with-leases.md).

    A reader that misses takes a lease and stores its value only while it holds the lease.
    `invalidate` removes value and lease, so that a reader cannot store what it read before a write.
    """

    def __init__(self, redis: Redis | None, ttl_seconds: int) -> None:
        self._redis = redis
        self._ttl_seconds = ttl_seconds
        self._circuit_open_until = 0.0

    async def get_or_load(self, key: str, load: Callable[[], Awaitable[bytes]]) -> bytes:
        """The value of `key` from Redis, or else from `load`. Raises only what `load` raises."""
        if self._redis is None or self._circuit_is_open():
            return await load()
        lease = LEASE_PREFIX + token_bytes(16)
        # One command: the reply is the value or the lease of another reader. If there is neither,
        # it sets our lease and replies None.
        current = await self._execute(
            self._redis.set(key, lease, nx=True, get=True, ex=LEASE_SECONDS)
        )
        if current is not None and current.startswith(VALUE_PREFIX):
            return bytes(current.removeprefix(VALUE_PREFIX))
        value = await load()
        # None is also the reply after a failure, which opens the circuit.
        holds_lease = current is None and not self._circuit_is_open()
        if holds_lease:
            await self._execute(
                self._redis.eval(
                    STORE_UNDER_LEASE, 1, key, lease, VALUE_PREFIX + value, self._ttl_seconds
                )
            )
        return value

    async def invalidate(self, key: str) -> None:
        """Remove `key`. Call it after the commit, before the write is acknowledged.

        If Redis fails here, readers can see the old value until its TTL ends.
        """
        if self._redis is not None:
            # Even while the circuit is open: other processes may read the old value from Redis.
            await self._execute(self._redis.delete(key))

    async def status(self) -> str:
        """`ok`, `unreachable` or `disabled`."""
        if self._redis is None:
            return "disabled"
        return "ok" if await self._execute(self._redis.ping()) else "unreachable"

    async def _execute(self, command: Awaitable[Any]) -> Any:
        """The reply of Redis, or None after a failure, which also opens the circuit."""
        try:
            return await command
        except (RedisError, OSError) as error:
            if not self._circuit_is_open():
                logger.warning("cache failed", extra={"error": type(error).__name__})
            self._circuit_open_until = monotonic() + CIRCUIT_OPEN_SECONDS
            return None

    def _circuit_is_open(self) -> bool:
        return monotonic() < self._circuit_open_until


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncIterator[Cache]:
    """A cache that connects at first use. Without REDIS_URL, reads always call `load`."""
    url = settings.redis_url.get_secret_value()
    if not url:
        yield Cache(None, settings.cache_ttl)
        return
    timeout = settings.redis_timeout
    pool = BlockingConnectionPool.from_url(
        url, timeout=timeout, socket_timeout=timeout, socket_connect_timeout=timeout
    )
    async with Redis.from_pool(pool) as redis:
        yield Cache(redis, settings.cache_ttl)
