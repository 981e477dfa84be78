"""How the cache behaves when Redis fails: reads are loaded, and the circuit opens for a while."""

from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from fastapi_k8s import cache as cache_module
from fastapi_k8s.cache import CIRCUIT_OPEN_SECONDS, Cache


class FakeRedis:
    """Stores nothing, and records its commands. If `error` is set, each command raises it."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.error: Exception | None = None

    def __getattr__(self, command: str) -> Callable[..., Awaitable[object]]:
        async def execute(*_: object, **__: object) -> object:
            self.commands.append(command)
            if self.error:
                raise self.error
            return True if command == "ping" else None

        return execute


class FakeClock:
    """Replaces `monotonic`. The test sets the time, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(cache_module, "monotonic", clock)
    return clock


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
def cache(redis: FakeRedis, clock: FakeClock) -> Cache:
    return Cache(cast("Redis", redis), ttl_seconds=30)


async def load() -> bytes:
    return b"loaded"


@pytest.mark.parametrize("error", [RedisConnectionError("hidden"), TimeoutError(), OSError()])
async def test_a_read_loads_the_value_if_redis_fails(
    cache: Cache, redis: FakeRedis, error: Exception
) -> None:
    redis.error = error
    assert await cache.get_or_load("key", load) == b"loaded"
    assert len(redis.commands) == 1  # The reader does not try to store the value.


async def test_reads_skip_redis_while_the_circuit_is_open(
    cache: Cache, redis: FakeRedis, clock: FakeClock
) -> None:
    redis.error = RedisConnectionError()
    await cache.get_or_load("key", load)
    redis.commands.clear()
    clock.now += CIRCUIT_OPEN_SECONDS * 0.9
    assert await cache.get_or_load("key", load) == b"loaded"
    assert redis.commands == []
    clock.now += CIRCUIT_OPEN_SECONDS * 0.2
    redis.error = None
    assert await cache.get_or_load("key", load) == b"loaded"
    assert redis.commands


async def test_a_failure_after_the_circuit_has_closed_opens_it_again(
    cache: Cache, redis: FakeRedis, clock: FakeClock
) -> None:
    redis.error = RedisConnectionError()
    await cache.get_or_load("key", load)
    clock.now += CIRCUIT_OPEN_SECONDS
    await cache.get_or_load("key", load)
    assert len(redis.commands) == 2
    clock.now += CIRCUIT_OPEN_SECONDS * 0.9
    await cache.get_or_load("key", load)
    assert len(redis.commands) == 2


async def test_a_key_is_invalidated_even_while_the_circuit_is_open(
    cache: Cache, redis: FakeRedis
) -> None:
    redis.error = RedisConnectionError()
    await cache.get_or_load("key", load)
    redis.commands.clear()
    await cache.invalidate("key")
    await cache.invalidate("key")
    assert len(redis.commands) == 2


async def test_an_outage_is_logged_once_per_open_circuit_without_the_text_of_the_error(
    cache: Cache, redis: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    redis.error = RedisConnectionError("hidden")
    await cache.invalidate("key")
    await cache.invalidate("key")
    assert [record.message for record in caplog.records] == ["cache failed"]
    assert "hidden" not in str(caplog.records[0].__dict__)


async def test_the_status_shows_whether_redis_is_reachable(cache: Cache, redis: FakeRedis) -> None:
    assert await cache.status() == "ok"
    redis.error = RedisConnectionError()
    assert await cache.status() == "unreachable"


async def test_a_disabled_cache_always_loads() -> None:
    cache = Cache(None, ttl_seconds=30)
    assert await cache.get_or_load("key", load) == b"loaded"
    await cache.invalidate("key")
    assert await cache.status() == "disabled"
