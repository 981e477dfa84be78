"""The Redis cache. It is optional: if Redis fails, reads call `load` instead."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from secrets import token_bytes
from time import monotonic
from typing import Any, TypeAlias

from pydantic import BaseModel
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from .error_log import ErrorLog
from .settings import Settings

logger = logging.getLogger(__name__)
Load: TypeAlias = Callable[[], Awaitable[bytes]]

CIRCUIT_OPEN_SECONDS = 1.0
"""How long reads skip Redis after a failure. Without it, each would wait for the timeout."""

TIMEOUT_TICKS = 20
"""The number of ticks into which the timeout of a command is divided."""

INVALIDATION_TICKS = TIMEOUT_TICKS // 2
"""The timeout of each of the two attempts to invalidate a key. Both together take one timeout."""

LEASE_SECONDS = 10
"""How long a lease stays in Redis if no reader stores a value under it."""

HIT = "hit"
MISS = "miss"
BYPASS = "bypass"
"""The results of a read. `bypass` is a read that called `load` because Redis had failed."""

VALUE_PREFIX = b"="
LEASE_PREFIX = b"?"
COMPARE_AND_SET = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
end
"""

STATUS_KEY = "cache:status"
"""The key on which `Cache.status` tries the commands."""

SERVER_ERRORS = (
    OSError,  # includes TimeoutError
    RedisConnectionError,  # also after a wrong password, or while Redis loads its data
    RedisTimeoutError,
    ReadOnlyError,  # the server is a replica, for example after a failover
)
"""Errors that open the circuit. All others concern one command or one key."""

RETRIED_ERRORS: Any = (
    *SERVER_ERRORS,
    RuntimeError,  # uvloop's error for a connection that was reset while it was idle
)
"""Errors after which the client tries a command again, once, on a new connection.

The type is `Any` because redis-py declares that only its own errors can be retried.
"""


def representation_of(model: type[BaseModel]) -> bytes:
    """A digest of the JSON schema of `model`: it differs if a release changes the fields."""
    schema = json.dumps(model.model_json_schema(mode="serialization"), sort_keys=True)
    return blake2b(schema.encode(), digest_size=8).hexdigest().encode()


@dataclass(frozen=True)
class CacheStatistics:
    """The state of the circuit, and what has happened since the statistics were taken before.

    `reads` has the number of reads by their result: HIT, MISS or BYPASS. `errors` is the number of
    commands that Redis has not executed.
    """

    circuit_is_open: bool
    reads: Counter[str]
    errors: int


class RedisFailedError(Exception):
    """Redis has not executed a command. The cause is the error of the client library."""


class RedisClient:
    """Executes commands with a time limit, on at most `pool_size` connections.

    An error of the server opens the circuit: commands then fail at once, without a connection.
    """

    def __init__(self, redis: Redis, pool_size: int, timeout_seconds: float) -> None:
        self._redis = redis
        self._execute_command: Callable[..., Awaitable[Any]] = redis.execute_command
        # The wait for a connection has no time limit, because a busy client does not mean that
        # Redis is down. Each command ends in time, and all that wait end when the circuit opens.
        self._free_connections = asyncio.Semaphore(pool_size)
        self._tick_seconds = timeout_seconds / TIMEOUT_TICKS
        self._ticks = 0
        self._is_ticking = False
        self._last_ticks: dict[asyncio.Timeout, int] = {}
        self._circuit_open_until = 0.0
        self._server_error: Exception | None = None
        self._errors = 0
        self._error_log = ErrorLog(logger, "cache failed")

    def circuit_is_open(self) -> bool:
        """Whether the server failed within the last CIRCUIT_OPEN_SECONDS."""
        return monotonic() < self._circuit_open_until

    def take_errors(self) -> int:
        """The number of commands that have failed since the last call."""
        errors = self._errors
        self._errors = 0
        return errors

    async def execute(
        self, *command: str | bytes | int, timeout_ticks: int = TIMEOUT_TICKS, **options: Any
    ) -> Any:
        """The reply to a command. Raises RedisFailedError."""
        async with self._free_connections:
            if self.circuit_is_open():
                raise RedisFailedError from self._server_error
            return await self._wait_for(self._execute_command(*command, **options), timeout_ticks)

    async def execute_on_new_connection(
        self, *command: str | bytes | int, timeout_ticks: int
    ) -> Any:
        """Like `execute`, without the pool, and even while the circuit is open."""
        return await self._wait_for(self._execute_on_new_connection(*command), timeout_ticks)

    async def _execute_on_new_connection(self, *command: str | bytes | int) -> Any:
        connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.send_command(*command)  # connects first
            return await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)

    async def _wait_for(self, reply: Awaitable[Any], timeout_ticks: int) -> Any:
        """The reply. Raises RedisFailedError after an error or a timeout."""
        try:
            async with asyncio.timeout(None) as timeout:
                self._last_ticks[timeout] = self._ticks + timeout_ticks
                if not self._is_ticking:
                    self._start_tick()
                try:
                    return await reply
                finally:
                    self._last_ticks.pop(timeout, None)
        except Exception as error:  # whatever the client library raises
            self._errors += 1
            self._error_log.warn(error)
            if isinstance(error, SERVER_ERRORS):
                self._server_error = error
                self._circuit_open_until = monotonic() + CIRCUIT_OPEN_SECONDS
            raise RedisFailedError from error

    def _start_tick(self) -> None:
        self._is_ticking = True
        asyncio.get_running_loop().call_later(self._tick_seconds, self._end_tick)

    def _end_tick(self) -> None:
        """Cancel the commands whose time is over, and start the next tick if others wait.

        Time is counted in ticks, between which the event loop reads what Redis has replied. A timer
        would also count the time in which this process had no CPU or was busy, and would cancel
        commands whose replies have arrived.
        """
        self._ticks += 1
        for timeout, last_tick in list(self._last_ticks.items()):
            if self._ticks > last_tick:
                del self._last_ticks[timeout]
                timeout.reschedule(0)  # a time in the past: now
        if self._last_ticks:
            self._start_tick()
        else:
            self._is_ticking = False


class Cache:
    """A read-through cache with leases (docs/decisions/0002-cache-with-leases.md).

    A reader that misses takes a lease, or gets the lease of another reader. Its value may be stored
    only while the lease is in Redis. `invalidate` removes value and lease, so that a reader cannot
    store what it read before a write.
    """

    def __init__(self, client: RedisClient | None, ttl_seconds: int) -> None:
        self._client = client
        self._ttl_seconds = ttl_seconds
        self._loads: dict[tuple[bytes, bytes], asyncio.Task[bytes]] = {}
        self._reads: Counter[str] = Counter()

    async def get_or_load(self, key: str, representation: bytes, load: Load) -> bytes:
        """The value of `key` from Redis, or else from `load`. Raises only what `load` raises.

        A value that was stored with another `representation` counts as a miss. During a rolling
        update, pods of two releases use the same keys.
        """
        client = self._client
        if client is None:
            return await load()
        if client.circuit_is_open():
            self._reads[BYPASS] += 1
            return await load()
        prefix = VALUE_PREFIX + representation
        try:
            current = await _get_value_or_lease(client, key, prefix)
        except RedisFailedError:
            self._reads[BYPASS] += 1
            return await load()
        if current.startswith(prefix):
            self._reads[HIT] += 1
            return current.removeprefix(prefix)
        self._reads[MISS] += 1
        # A load that runs under the same lease began after the last write of `key`: otherwise
        # `invalidate` would have removed the lease. So this reader can share the load.
        shared_by = (prefix, current)
        task = self._loads.get(shared_by)
        if task is None:
            task = asyncio.create_task(self._load_and_store(client, key, current, prefix, load))
            self._loads[shared_by] = task
            task.add_done_callback(partial(self._end_load, shared_by))
        # Not `await task`: a reader that is cancelled must not cancel the load of the others. Not
        # asyncio.shield(): since Python 3.14 it logs the error of a load after its reader has gone.
        await asyncio.wait([task])
        return task.result()

    async def invalidate(self, key: str) -> None:
        """Remove `key`. Pass it as `after_commit` to `Database.transaction`.

        It is then called before the write is acknowledged, and even if the request is cancelled. If
        Redis fails here, readers can see the old value until its TTL ends.
        """
        if self._client is not None:
            await _delete(self._client, key)

    async def status(self) -> str:
        """`ok`, `disabled`, `unreachable`, or `misconfigured` if Redis refuses a command."""
        client = self._client
        if client is None:
            return "disabled"
        lease = LEASE_PREFIX + token_bytes(16)
        try:
            await client.execute(*_set_if_absent(STATUS_KEY, lease), get=True)
            await client.execute(*_compare_and_set(STATUS_KEY, lease, lease, LEASE_SECONDS))
            await client.execute("DEL", STATUS_KEY)
        except RedisFailedError as error:
            is_refused = isinstance(error.__cause__, ResponseError | AuthenticationError)
            return "misconfigured" if is_refused else "unreachable"
        return "ok"

    def take_statistics(self) -> CacheStatistics:
        """The state of the circuit, and what has happened since the last call."""
        reads = self._reads
        self._reads = Counter()
        client = self._client
        if client is None:
            return CacheStatistics(circuit_is_open=False, reads=reads, errors=0)
        return CacheStatistics(client.circuit_is_open(), reads, client.take_errors())

    def _end_load(self, shared_by: tuple[bytes, bytes], task: asyncio.Task[bytes]) -> None:
        del self._loads[shared_by]
        # If all readers were cancelled, asyncio would log the error of the load with a traceback.
        if not task.cancelled():
            task.exception()

    async def _load_and_store(
        self, client: RedisClient, key: str, lease: bytes, prefix: bytes, load: Load
    ) -> bytes:
        value = await load()
        with suppress(RedisFailedError):
            await client.execute(*_compare_and_set(key, lease, prefix + value, self._ttl_seconds))
        return value


async def _get_value_or_lease(client: RedisClient, key: str, prefix: bytes) -> bytes:
    """The stored value, with its prefix, or the lease under which a value may be stored.

    Raises RedisFailedError.
    """
    lease = LEASE_PREFIX + token_bytes(16)
    for _ in range(2):
        current: bytes | None = await client.execute(*_set_if_absent(key, lease), get=True)
        if current is None:
            return lease
        if current.startswith((prefix, LEASE_PREFIX)):
            return current
        # Another representation: replace it by the lease, unless a write has removed it.
        await client.execute(*_compare_and_set(key, current, lease, LEASE_SECONDS))
    # The other release has stored its value again.
    return lease


def _set_if_absent(key: str, lease: bytes) -> tuple[str | bytes | int, ...]:
    """The command that stores `lease` under `key`, or else returns what is there."""
    return ("SET", key, lease, "NX", "GET", "EX", LEASE_SECONDS)


def _compare_and_set(
    key: str, expected: bytes, value: bytes, ttl_seconds: int
) -> tuple[str | bytes | int, ...]:
    """The command that replaces what is under `key` by `value`, if it is `expected`."""
    return ("EVAL", COMPARE_AND_SET, 1, key, expected, value, ttl_seconds)


async def _delete(client: RedisClient, key: str) -> None:
    try:
        await client.execute("DEL", key, timeout_ticks=INVALIDATION_TICKS)
    except RedisFailedError:
        # The idle connections may all be dead. The circuit may also be open for a reason that
        # does not concern other processes, which read the old value.
        with suppress(RedisFailedError):
            await client.execute_on_new_connection("DEL", key, timeout_ticks=INVALIDATION_TICKS)


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncIterator[Cache]:
    """A cache that connects at first use. Without REDIS_URL, reads always call `load`."""
    url = settings.redis_url.get_secret_value()
    if not url:
        yield Cache(None, settings.cache_ttl)
        return
    pool = ConnectionPool.from_url(
        url,
        max_connections=settings.redis_pool_size,
        # RedisClient limits each command as a whole.
        socket_timeout=None,
        # Also limits how long a connection may take to close.
        socket_connect_timeout=10 * settings.redis_timeout,
        retry=Retry(NoBackoff(), retries=1, supported_errors=RETRIED_ERRORS),
    )
    # An option of the URL would take precedence over an argument of from_url().
    pool.connection_kwargs["decode_responses"] = False
    async with Redis.from_pool(pool) as redis:
        client = RedisClient(redis, pool.max_connections, settings.redis_timeout)
        yield Cache(client, settings.cache_ttl)
