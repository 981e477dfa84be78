"""What the cache does when Redis fails, with a Redis that fails on command."""

from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from fastapi_k8s import cache as module
from fastapi_k8s.cache import CIRCUIT_OPEN_SECONDS, Cache


class FakeRedis:
    """Notes the commands it is given; has no values, and while `broken` no answers."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.broken: Exception | None = None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def run(*_: object, **__: object) -> object:
            self.commands.append(name)
            if self.broken:
                raise self.broken
            return True if name == "ping" else None

        return run


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
def cache(redis: FakeRedis, clock: Clock) -> Cache:
    return Cache(cast("Redis", redis), ttl_seconds=30)


async def load() -> bytes:
    return b"loaded"


@pytest.mark.parametrize("error", [RedisConnectionError("hidden"), TimeoutError(), OSError()])
async def test_a_read_that_redis_fails_is_loaded(
    cache: Cache, redis: FakeRedis, error: Exception
) -> None:
    redis.broken = error
    assert await cache.get_or_load("key", load) == b"loaded"
    assert len(redis.commands) == 1  # not asked to fill what it could not read


async def test_reads_pass_redis_by_for_a_while_after_it_failed(
    cache: Cache, redis: FakeRedis, clock: Clock
) -> None:
    redis.broken = RedisConnectionError()
    await cache.get_or_load("key", load)
    redis.commands.clear()
    clock.now += CIRCUIT_OPEN_SECONDS * 0.9
    assert await cache.get_or_load("key", load) == b"loaded"
    assert redis.commands == []
    clock.now += CIRCUIT_OPEN_SECONDS * 0.2
    redis.broken = None
    assert await cache.get_or_load("key", load) == b"loaded"
    assert redis.commands


async def test_a_failure_at_the_next_try_makes_reads_pause_again(
    cache: Cache, redis: FakeRedis, clock: Clock
) -> None:
    redis.broken = RedisConnectionError()
    await cache.get_or_load("key", load)
    clock.now += CIRCUIT_OPEN_SECONDS
    await cache.get_or_load("key", load)
    asked = len(redis.commands)
    clock.now += CIRCUIT_OPEN_SECONDS * 0.9
    await cache.get_or_load("key", load)
    assert len(redis.commands) == asked == 2


async def test_a_key_is_dropped_even_while_reads_pause(cache: Cache, redis: FakeRedis) -> None:
    redis.broken = RedisConnectionError()
    await cache.get_or_load("key", load)
    redis.commands.clear()
    await cache.invalidate("key")
    await cache.invalidate("key")
    assert len(redis.commands) == 2


async def test_an_outage_is_logged_once_a_pause_without_the_errors_text(
    cache: Cache, redis: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    redis.broken = RedisConnectionError("hidden")
    await cache.invalidate("key")
    await cache.invalidate("key")
    assert [record.message for record in caplog.records] == ["cache failed"]
    assert "hidden" not in str(caplog.records[0].__dict__)


async def test_status_tells_whether_redis_answers(cache: Cache, redis: FakeRedis) -> None:
    assert await cache.status() == "ok"
    redis.broken = RedisConnectionError()
    assert await cache.status() == "unreachable"


async def test_a_disabled_cache_always_loads() -> None:
    cache = Cache(None, ttl_seconds=30)
    assert await cache.get_or_load("key", load) == b"loaded"
    await cache.invalidate("key")
    assert await cache.status() == "disabled"
