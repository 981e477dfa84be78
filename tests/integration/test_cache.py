"""The cache on a real Valkey: never older than what a writer was told, and never in the way."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from fastapi_k8s import cache as cache_module
from fastapi_k8s.cache import Cache, open_cache
from tests.conftest import MakeSettings
from tools.dev.servers import Valkey, free_port

Loader = Callable[[], Awaitable[bytes]]


def loader(*values: bytes) -> Loader:
    """Gives each value once, then fails."""
    remaining = iter(values)

    async def load() -> bytes:
        return next(remaining)

    return load


async def until_in_use(cache: Cache, key: str) -> None:
    """Wait until reads go to Redis again."""
    async with asyncio.timeout(10):
        while True:
            await cache.get_or_load(key, loader(b"again"))
            if await cache.get_or_load(key, loader(b"later")) == b"again":
                return
            await cache.invalidate(key)
            await asyncio.sleep(0.05)


@pytest.fixture
async def cache(own_valkey: Valkey, make_settings: MakeSettings) -> AsyncIterator[Cache]:
    async with open_cache(make_settings(redis_url=own_valkey.url)) as cache:
        yield cache


async def test_a_value_is_loaded_once_and_then_read_from_redis(cache: Cache) -> None:
    load = loader(b"value")
    assert [await cache.get_or_load("key", load) for _ in range(3)] == [b"value"] * 3


async def test_a_dropped_value_is_loaded_again(cache: Cache) -> None:
    await cache.get_or_load("key", loader(b"old"))
    await cache.invalidate("key")
    assert await cache.get_or_load("key", loader(b"new")) == b"new"


async def test_a_value_expires(own_valkey: Valkey, make_settings: MakeSettings) -> None:
    async with open_cache(make_settings(redis_url=own_valkey.url, cache_ttl=1)) as cache:
        await cache.get_or_load("key", loader(b"old"))
        async with asyncio.timeout(10):
            while await cache.get_or_load("key", loader(b"new")) == b"old":
                await asyncio.sleep(0.05)


async def test_a_reader_who_loaded_before_a_write_does_not_fill_after_it(cache: Cache) -> None:
    """The slow reader holds the older value while the writer commits and drops the key."""
    loading, committed = asyncio.Event(), asyncio.Event()

    async def slow() -> bytes:
        loading.set()
        await committed.wait()
        return b"old"

    reader = asyncio.create_task(cache.get_or_load("key", slow))
    await loading.wait()
    await cache.invalidate("key")
    committed.set()
    assert await reader == b"old"
    assert await cache.get_or_load("key", loader(b"new")) == b"new"
    assert await cache.get_or_load("key", loader(b"newer")) == b"new"


async def test_of_concurrent_readers_one_fills_and_none_waits(cache: Cache) -> None:
    """Each loads only when all are loading: one that waited for another would never end."""
    values = [f"{n}".encode() for n in range(10)]
    all_loading = asyncio.Barrier(len(values))

    async def read(value: bytes) -> bytes:
        async def load() -> bytes:
            await all_loading.wait()
            return value

        return await cache.get_or_load("key", load)

    async with asyncio.timeout(20):
        assert await asyncio.gather(*map(read, values)) == values
    assert await cache.get_or_load("key", loader()) in values


async def test_a_reader_that_fails_to_load_leaves_nothing_behind(cache: Cache) -> None:
    async def fail() -> bytes:
        raise LookupError

    with pytest.raises(LookupError):
        await cache.get_or_load("key", fail)
    assert await cache.get_or_load("key", loader(b"value")) == b"value"


async def test_no_reader_sees_an_older_value_after_an_acknowledged_write(cache: Cache) -> None:
    """Readers and a writer at full speed: every read that starts after a write sees it."""
    stored = acknowledged = 0

    async def load() -> bytes:
        value = stored
        await asyncio.sleep(0)
        return f"{value}".encode()

    async def write() -> None:
        nonlocal stored, acknowledged
        for number in range(1, 300):
            stored = number  # the commit
            await cache.invalidate("key")
            acknowledged = number
            await asyncio.sleep(0)

    async def read(writer: "asyncio.Task[None]") -> int:
        reads = 0
        while not writer.done():
            known = acknowledged
            assert int(await cache.get_or_load("key", load)) >= known
            reads += 1
        return reads

    writer = asyncio.create_task(write())
    reads = await asyncio.gather(*(read(writer) for _ in range(8)))
    assert sum(reads) > 300


async def test_without_a_server_values_are_loaded(make_settings: MakeSettings) -> None:
    async with open_cache(make_settings(redis_url=f"redis://127.0.0.1:{free_port()}")) as cache:
        assert await cache.get_or_load("key", loader(b"value")) == b"value"
        await cache.invalidate("key")
        assert await cache.status() == "unreachable"


async def test_a_wrong_password_counts_as_unreachable(
    own_valkey: Valkey, make_settings: MakeSettings
) -> None:
    url = f"redis://:wrong@127.0.0.1:{own_valkey.port}"
    async with open_cache(make_settings(redis_url=url)) as cache:
        assert await cache.get_or_load("key", loader(b"value")) == b"value"
        assert await cache.status() == "unreachable"


async def test_a_killed_server_is_passed_by_and_used_again_when_it_is_back(
    cache: Cache, own_valkey: Valkey
) -> None:
    await cache.get_or_load("key", loader(b"cached"))
    own_valkey.stop(signal.SIGKILL)
    for n in range(5):
        assert await cache.get_or_load("key", loader(b"%d" % n)) == b"%d" % n
    own_valkey.start()
    await until_in_use(cache, "key")


async def test_a_server_that_hangs_costs_its_time_limit_once_per_pause(
    own_valkey: Valkey, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While reads pass Redis by, a thousand of them load without asking it."""
    monkeypatch.setattr(cache_module, "CIRCUIT_OPEN_SECONDS", 3600)
    settings = make_settings(redis_url=own_valkey.url, redis_timeout=0.2)
    async with open_cache(settings) as cache:
        own_valkey.freeze()
        try:
            for n in range(1000):
                assert await cache.get_or_load("key", loader(b"%d" % n)) == b"%d" % n
        finally:
            own_valkey.thaw()


async def test_what_somebody_else_stored_under_a_key_is_not_taken_for_a_value(
    cache: Cache, own_valkey: Valkey
) -> None:
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.set("key", b"something else")
        assert await cache.get_or_load("key", loader(b"value")) == b"value"
        await redis.delete("key")
        await redis.rpush("key", "a list")
        assert await cache.get_or_load("key", loader(b"value")) == b"value"
