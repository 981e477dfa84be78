"""The Redis cache: optional, and never in the way. PostgreSQL can always answer instead."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from secrets import token_bytes
from time import monotonic

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from .settings import Settings

logger = logging.getLogger(__name__)

FAILURES = (RedisError, OSError)
PAUSE = 1.0  # seconds that reads pass Redis by after it failed, lest they all wait for it
LEASE_TTL = 10  # seconds
VALUE, LEASE = b"=", b"?"
FILL = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
end
"""


class Cache:
    """Values by key, read through to a loader.

    A reader that misses takes a lease, loads, and fills the key only if its lease is still there.
    A writer deletes the key after its commit, and any lease with it: who loaded before the commit
    cannot fill after it. (Leases: Nishtala et al., Scaling Memcache at Facebook, NSDI 2013.)
    """

    def __init__(self, redis: Redis | None, ttl: int) -> None:
        self._redis = redis
        self._ttl = ttl
        self._paused_until = 0.0

    async def read(self, key: str, load: Callable[[], Awaitable[bytes | None]]) -> bytes | None:
        """The value of `key`, from Redis or else from `load`, whose None is not cached."""
        redis = self._redis
        if redis is None or monotonic() < self._paused_until:
            return await load()
        lease = LEASE + token_bytes(16)
        try:
            found = await redis.set(key, lease, nx=True, get=True, ex=LEASE_TTL)
        except FAILURES as error:
            self._pause(error)
            return await load()
        if isinstance(found, bytes) and found.startswith(VALUE):
            return found.removeprefix(VALUE)
        value = await load()
        if found is None and value is not None:
            try:
                await redis.eval(FILL, 1, key, lease, VALUE + value, self._ttl)
            except FAILURES as error:
                self._pause(error)
        return value

    async def drop(self, key: str) -> None:
        """Forget `key`: after the commit, before it is acknowledged.

        Tried even while reads pass Redis by: other processes may be reading from it. Should it
        fail, they may see the older value until its time to live has passed.
        """
        if self._redis is not None:
            try:
                await self._redis.delete(key)
            except FAILURES as error:
                self._pause(error)

    async def status(self) -> str:
        """`ok`, `unreachable`, or `disabled`."""
        if self._redis is None:
            return "disabled"
        try:
            await self._redis.ping()
        except FAILURES:
            return "unreachable"
        return "ok"

    def _pause(self, error: Exception) -> None:
        if monotonic() >= self._paused_until:
            logger.warning("cache failed", extra={"fields": {"error": type(error).__name__}})
        self._paused_until = monotonic() + PAUSE


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncIterator[Cache]:
    """A cache that connects at first use; one that is always empty without REDIS_URL."""
    limit = settings.redis_timeout
    url = settings.redis_url.get_secret_value()
    if not url:
        yield Cache(None, settings.cache_ttl)
        return
    pool = BlockingConnectionPool.from_url(
        url,
        timeout=limit,
        socket_timeout=limit,
        socket_connect_timeout=limit,
        retry=Retry(NoBackoff(), 0),
    )
    async with Redis.from_pool(pool) as redis:
        yield Cache(redis, settings.cache_ttl)
