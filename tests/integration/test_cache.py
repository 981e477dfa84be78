"""The cache on a real Valkey: it never returns a value from before an acknowledged write, and it
never makes a read fail.
"""

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


def make_loader(*values: bytes) -> Loader:
    """A loader that returns each value once, in this order. The next call raises an error."""
    remaining_values = iter(values)

    async def load() -> bytes:
        return next(remaining_values)

    return load


async def wait_until_used(cache: Cache, key: str) -> None:
    """Wait until the cache stores values again, that is, until the circuit has closed."""
    async with asyncio.timeout(10):
        while True:
            await cache.get_or_load(key, make_loader(b"first"))
            if await cache.get_or_load(key, make_loader(b"second")) == b"first":
                return
            await cache.invalidate(key)
            await asyncio.sleep(0.05)


@pytest.fixture
async def cache(own_valkey: Valkey, make_settings: MakeSettings) -> AsyncIterator[Cache]:
    async with open_cache(make_settings(redis_url=own_valkey.url)) as cache:
        yield cache


async def test_a_value_is_loaded_once_and_then_read_from_redis(cache: Cache) -> None:
    load = make_loader(b"value")
    for _ in range(3):
        assert await cache.get_or_load("key", load) == b"value"


async def test_an_invalidated_value_is_loaded_again(cache: Cache) -> None:
    await cache.get_or_load("key", make_loader(b"old"))
    await cache.invalidate("key")
    assert await cache.get_or_load("key", make_loader(b"new")) == b"new"


async def test_a_value_expires_after_its_ttl(
    own_valkey: Valkey, make_settings: MakeSettings
) -> None:
    async with open_cache(make_settings(redis_url=own_valkey.url, cache_ttl=1)) as cache:
        await cache.get_or_load("key", make_loader(b"old"))
        async with asyncio.timeout(10):
            while await cache.get_or_load("key", make_loader(b"new")) == b"old":
                await asyncio.sleep(0.05)


async def test_a_reader_that_loaded_before_a_write_does_not_store_after_it(cache: Cache) -> None:
    """The slow reader has loaded the old value when the writer commits and invalidates the key."""
    has_loaded = asyncio.Event()
    has_committed = asyncio.Event()

    async def load_slowly() -> bytes:
        has_loaded.set()
        await has_committed.wait()
        return b"old"

    reader = asyncio.create_task(cache.get_or_load("key", load_slowly))
    await has_loaded.wait()
    await cache.invalidate("key")
    has_committed.set()
    assert await reader == b"old"
    assert await cache.get_or_load("key", make_loader(b"new")) == b"new"
    assert await cache.get_or_load("key", make_loader(b"newer")) == b"new"


async def test_one_of_many_concurrent_readers_stores_and_none_waits_for_another(
    cache: Cache,
) -> None:
    """No loader returns before all have been called, so a reader that waited would never end."""
    values = [f"{number}".encode() for number in range(10)]
    all_loading = asyncio.Barrier(len(values))

    async def read(value: bytes) -> bytes:
        async def load() -> bytes:
            await all_loading.wait()
            return value

        return await cache.get_or_load("key", load)

    async with asyncio.timeout(20):
        assert await asyncio.gather(*[read(value) for value in values]) == values
    assert await cache.get_or_load("key", make_loader()) in values


async def test_a_reader_whose_load_fails_does_not_block_the_next_reader(cache: Cache) -> None:
    async def fail() -> bytes:
        raise LookupError

    with pytest.raises(LookupError):
        await cache.get_or_load("key", fail)
    assert await cache.get_or_load("key", make_loader(b"value")) == b"value"


async def test_no_reader_sees_an_old_value_after_an_acknowledged_write(cache: Cache) -> None:
    """Each read that starts after a write returns the value of that write or a newer one."""
    committed = 0
    acknowledged = 0

    async def load() -> bytes:
        value = committed
        await asyncio.sleep(0)
        return f"{value}".encode()

    async def write() -> None:
        nonlocal committed, acknowledged
        for number in range(1, 300):
            committed = number
            await cache.invalidate("key")
            acknowledged = number
            await asyncio.sleep(0)

    async def read(writer: "asyncio.Task[None]") -> int:
        reads = 0
        while not writer.done():
            acknowledged_before = acknowledged
            assert int(await cache.get_or_load("key", load)) >= acknowledged_before
            reads += 1
        return reads

    writer = asyncio.create_task(write())
    reads = await asyncio.gather(*[read(writer) for _ in range(8)])
    assert sum(reads) > 300


async def test_values_are_loaded_if_there_is_no_server(make_settings: MakeSettings) -> None:
    async with open_cache(make_settings(redis_url=f"redis://127.0.0.1:{free_port()}")) as cache:
        assert await cache.get_or_load("key", make_loader(b"value")) == b"value"
        await cache.invalidate("key")
        assert await cache.status() == "unreachable"


async def test_values_are_loaded_if_the_password_is_wrong(
    own_valkey: Valkey, make_settings: MakeSettings
) -> None:
    url = f"redis://:wrong@127.0.0.1:{own_valkey.port}"
    async with open_cache(make_settings(redis_url=url)) as cache:
        assert await cache.get_or_load("key", make_loader(b"value")) == b"value"
        assert await cache.status() == "unreachable"


async def test_a_killed_server_is_skipped_and_used_again_after_its_restart(
    cache: Cache, own_valkey: Valkey
) -> None:
    await cache.get_or_load("key", make_loader(b"cached"))
    own_valkey.stop(signal.SIGKILL)
    for number in range(5):
        value = f"{number}".encode()
        assert await cache.get_or_load("key", make_loader(value)) == value
    own_valkey.start()
    await wait_until_used(cache, "key")


async def test_a_server_that_hangs_delays_only_the_read_that_opens_the_circuit(
    own_valkey: Valkey, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If each of the thousand reads waited for the timeout, they would take 200 seconds."""
    monkeypatch.setattr(cache_module, "CIRCUIT_OPEN_SECONDS", 3600)
    settings = make_settings(redis_url=own_valkey.url, redis_timeout=0.2)
    async with open_cache(settings) as cache:
        own_valkey.freeze()
        try:
            async with asyncio.timeout(20):
                for number in range(1000):
                    value = f"{number}".encode()
                    assert await cache.get_or_load("key", make_loader(value)) == value
        finally:
            own_valkey.thaw()


async def test_a_value_that_another_program_stored_under_the_key_is_not_returned(
    cache: Cache, own_valkey: Valkey
) -> None:
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.set("key", b"something else")
        assert await cache.get_or_load("key", make_loader(b"value")) == b"value"
        await redis.delete("key")
        await redis.rpush("key", "a list")
        assert await cache.get_or_load("key", make_loader(b"value")) == b"value"
