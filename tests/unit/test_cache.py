"""How the cache behaves when Redis fails: reads are loaded, and the circuit opens for a while."""

import asyncio
from typing import Any, cast

import pytest
from pydantic import BaseModel
from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fastapi_k8s import cache as cache_module
from fastapi_k8s.cache import (
    CIRCUIT_OPEN_SECONDS,
    Cache,
    RedisClient,
    representation_of,
)

SERVER_ERRORS = [
    RedisConnectionError("refused"),
    RedisTimeoutError(),
    TimeoutError(),
    OSError(),
    ReadOnlyError("You can't write against a read only replica."),
    BusyLoadingError("Redis is loading the dataset in memory"),
    AuthenticationError("invalid username-password pair or user is disabled."),
]
COMMAND_ERRORS = [
    ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
    NoPermissionError("User app has no permissions to access one of the keys"),
    RuntimeError("the handler is closed"),
]


class FakeRedis:
    """Stores nothing, and records its commands.

    Each command returns `value`, or raises `error` if it is set.
    """

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.commands_on_new_connections: list[str] = []
        self.error: Exception | None = None
        self.value: bytes | None = None
        self.connection_pool = self

    async def execute_command(self, *command: Any, **_: Any) -> bytes | None:
        self.commands.append(command[0])
        if self.error:
            raise self.error
        return self.value

    def make_connection(self) -> "FakeRedis":
        return self

    async def send_command(self, *command: Any) -> None:
        self.commands_on_new_connections.append(command[0])

    async def read_response(self) -> None:
        if self.error:
            raise self.error

    async def disconnect(self, *, nowait: bool) -> None:
        assert nowait


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
    client = RedisClient(cast("Redis", redis), pool_size=1, timeout_seconds=30)
    return Cache(client, ttl_seconds=30)


async def load() -> bytes:
    return b"loaded"


async def read(cache: Cache) -> None:
    assert await cache.get_or_load("key", b"representation", load) == b"loaded"


@pytest.mark.parametrize("error", SERVER_ERRORS)
async def test_a_read_loads_the_value_if_the_server_fails(
    cache: Cache, redis: FakeRedis, error: Exception
) -> None:
    redis.error = error
    await read(cache)
    assert redis.commands == ["SET"]  # The reader does not try to store the value.


@pytest.mark.parametrize("error", SERVER_ERRORS)
async def test_reads_skip_redis_while_the_circuit_is_open(
    cache: Cache, redis: FakeRedis, clock: FakeClock, error: Exception
) -> None:
    redis.error = error
    await read(cache)
    redis.commands.clear()
    clock.now += CIRCUIT_OPEN_SECONDS * 0.9
    await read(cache)
    assert redis.commands == []
    clock.now += CIRCUIT_OPEN_SECONDS * 0.2
    redis.error = None
    await read(cache)
    assert redis.commands == ["SET", "EVAL"]


@pytest.mark.parametrize("error", COMMAND_ERRORS)
async def test_an_error_of_one_command_does_not_open_the_circuit(
    cache: Cache, redis: FakeRedis, error: Exception
) -> None:
    redis.error = error
    await read(cache)
    redis.error = None
    await read(cache)
    assert redis.commands == ["SET", "SET", "EVAL"]


async def test_a_failure_after_the_circuit_has_closed_opens_it_again(
    cache: Cache, redis: FakeRedis, clock: FakeClock
) -> None:
    redis.error = RedisConnectionError()
    await read(cache)
    clock.now += CIRCUIT_OPEN_SECONDS
    await read(cache)
    assert len(redis.commands) == 2
    clock.now += CIRCUIT_OPEN_SECONDS * 0.9
    await read(cache)
    assert len(redis.commands) == 2


async def test_readers_that_wait_for_a_connection_stop_waiting_when_the_circuit_opens(
    cache: Cache, redis: FakeRedis
) -> None:
    redis.error = RedisConnectionError()
    await asyncio.gather(*[read(cache) for _ in range(10)])
    assert redis.commands == ["SET"]


async def test_a_reader_that_cannot_replace_the_value_of_another_release_loads_its_own(
    cache: Cache, redis: FakeRedis
) -> None:
    redis.value = b"=another release"
    await read(cache)
    assert redis.commands == ["SET", "EVAL", "SET", "EVAL", "EVAL"]


@pytest.mark.parametrize("error", SERVER_ERRORS + COMMAND_ERRORS)
async def test_an_invalidation_that_fails_is_repeated_on_a_new_connection(
    cache: Cache, redis: FakeRedis, error: Exception
) -> None:
    redis.error = error
    await cache.invalidate("key")
    assert redis.commands == ["DEL"]
    assert redis.commands_on_new_connections == ["DEL"]


async def test_a_key_is_invalidated_even_while_the_circuit_is_open(
    cache: Cache, redis: FakeRedis
) -> None:
    redis.error = RedisConnectionError()
    await read(cache)
    await cache.invalidate("key")
    await cache.invalidate("key")
    assert redis.commands == ["SET"]
    assert redis.commands_on_new_connections == ["DEL", "DEL"]


async def test_an_error_is_logged_with_its_text(
    cache: Cache, redis: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    redis.error = ResponseError("syntax error")
    await read(cache)
    [record] = caplog.records
    assert record.message == "cache failed"
    assert record.__dict__["error"] == "ResponseError: syntax error"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "ok"),
        (RedisConnectionError(), "unreachable"),
        (TimeoutError(), "unreachable"),
        (BusyLoadingError(), "unreachable"),
        (ResponseError("syntax error"), "misconfigured"),
        (NoPermissionError(), "misconfigured"),
        (AuthenticationError(), "misconfigured"),
        (ReadOnlyError(), "misconfigured"),
    ],
)
async def test_the_status_shows_whether_redis_can_be_used(
    cache: Cache, redis: FakeRedis, error: Exception | None, status: str
) -> None:
    redis.error = error
    assert await cache.status() == status
    assert await cache.status() == status  # also while the circuit is open


async def test_a_disabled_cache_always_loads() -> None:
    cache = Cache(None, ttl_seconds=30)
    assert await cache.get_or_load("key", b"representation", load) == b"loaded"
    await cache.invalidate("key")
    assert await cache.status() == "disabled"


def test_the_representation_differs_if_a_field_differs() -> None:
    class Lamp(BaseModel):
        name: str

    lamp = representation_of(Lamp)

    class Lamp(BaseModel):  # type: ignore[no-redef]
        name: str

    assert representation_of(Lamp) == lamp

    class Lamp(BaseModel):  # type: ignore[no-redef]
        name: str
        watts: int | None = None

    assert representation_of(Lamp) != lamp
