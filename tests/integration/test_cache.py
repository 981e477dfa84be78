"""The cache on a real Valkey: it never returns a value from before an acknowledged write, and it
never makes a read fail.
"""

import asyncio
import gc
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from fastapi_k8s import cache as cache_module
from fastapi_k8s.cache import Cache, open_cache
from tests.conftest import LogLines, MakeSettings
from tests.integration.proxies import faulty_proxy
from tools.dev.servers import Valkey, free_port, running_servers

Loader = Callable[[], Awaitable[bytes]]
REPRESENTATION = b"representation"


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
            await cache.get_or_load(key, REPRESENTATION, make_loader(b"first"))
            if await cache.get_or_load(key, REPRESENTATION, make_loader(b"second")) == b"first":
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
        assert await cache.get_or_load("key", REPRESENTATION, load) == b"value"


@pytest.mark.parametrize("option", ["decode_responses=True", "protocol=2", "max_connections=1"])
async def test_options_of_the_url_do_not_break_the_cache(
    own_valkey: Valkey, make_settings: MakeSettings, option: str
) -> None:
    async with open_cache(make_settings(redis_url=f"{own_valkey.url}?{option}")) as cache:
        load = make_loader(b"value")
        for _ in range(2):
            readers = [cache.get_or_load("key", REPRESENTATION, load) for _ in range(20)]
            assert await asyncio.gather(*readers) == [b"value"] * 20
        assert await cache.status() == "ok"


async def test_an_invalidated_value_is_loaded_again(cache: Cache) -> None:
    await cache.get_or_load("key", REPRESENTATION, make_loader(b"old"))
    await cache.invalidate("key")
    assert await cache.get_or_load("key", REPRESENTATION, make_loader(b"new")) == b"new"


async def test_a_value_expires_after_its_ttl(
    own_valkey: Valkey, make_settings: MakeSettings
) -> None:
    async with open_cache(make_settings(redis_url=own_valkey.url, cache_ttl=1)) as cache:
        await cache.get_or_load("key", REPRESENTATION, make_loader(b"old"))
        async with asyncio.timeout(10):
            while await cache.get_or_load("key", REPRESENTATION, make_loader(b"new")) == b"old":
                await asyncio.sleep(0.05)


async def test_a_reader_that_loaded_before_a_write_does_not_store_after_it(cache: Cache) -> None:
    """The slow reader has loaded the old value when the writer commits and invalidates the key."""
    has_loaded = asyncio.Event()
    has_committed = asyncio.Event()

    async def load_slowly() -> bytes:
        has_loaded.set()
        await has_committed.wait()
        return b"old"

    reader = asyncio.create_task(cache.get_or_load("key", REPRESENTATION, load_slowly))
    await has_loaded.wait()
    await cache.invalidate("key")
    has_committed.set()
    assert await reader == b"old"
    assert await cache.get_or_load("key", REPRESENTATION, make_loader(b"new")) == b"new"
    assert await cache.get_or_load("key", REPRESENTATION, make_loader(b"newer")) == b"new"


class SlowLoader:
    """Each call of `load` waits for `finish`, and then returns the number of the call."""

    def __init__(self) -> None:
        self.calls = 0
        self.finish = asyncio.Event()

    async def load(self) -> bytes:
        self.calls += 1
        number = self.calls
        await self.finish.wait()
        return f"{number}".encode()

    async def wait_for_calls(self, number: int) -> None:
        async with asyncio.timeout(20):
            while self.calls < number:
                await asyncio.sleep(0.01)


async def wait_for_commands(server: Valkey, name: str, number: int) -> None:
    """Wait until the server has executed `number` commands of this name."""
    async with Redis.from_url(server.url) as redis, asyncio.timeout(20):
        while True:
            statistics = await redis.info("commandstats")
            if statistics.get(f"cmdstat_{name}", {}).get("calls", 0) >= number:
                return
            await asyncio.sleep(0.01)


async def test_concurrent_readers_of_one_process_share_one_load(
    own_valkey: Valkey, make_settings: MakeSettings
) -> None:
    """Two caches are like two processes: each of them loads once for its hundred readers."""
    settings = make_settings(redis_url=own_valkey.url)
    loader = SlowLoader()
    async with open_cache(settings) as first, open_cache(settings) as second:
        async with asyncio.TaskGroup() as tasks:
            readers = [
                tasks.create_task(cache.get_or_load("key", REPRESENTATION, loader.load))
                for cache in [first, second] * 100
            ]
            await wait_for_commands(own_valkey, "set", 200)
            await loader.wait_for_calls(2)
            loader.finish.set()
        assert loader.calls == 2
        assert {reader.result() for reader in readers} == {b"1", b"2"}


async def test_a_reader_that_starts_after_an_invalidation_does_not_share_an_earlier_load(
    own_valkey: Valkey, make_settings: MakeSettings
) -> None:
    settings = make_settings(redis_url=own_valkey.url)
    loader = SlowLoader()
    async with open_cache(settings) as cache, open_cache(settings) as cache_of_writer:
        async with asyncio.TaskGroup() as tasks:
            earlier = tasks.create_task(cache.get_or_load("key", REPRESENTATION, loader.load))
            await loader.wait_for_calls(1)
            await cache_of_writer.invalidate("key")
            later = tasks.create_task(cache.get_or_load("key", REPRESENTATION, loader.load))
            await loader.wait_for_calls(2)
            loader.finish.set()
        assert (earlier.result(), later.result()) == (b"1", b"2")
        assert await cache.get_or_load("key", REPRESENTATION, make_loader()) == b"2"


async def test_a_reader_whose_load_fails_does_not_block_the_next_reader(cache: Cache) -> None:
    async def fail() -> bytes:
        raise LookupError

    with pytest.raises(LookupError):
        await cache.get_or_load("key", REPRESENTATION, fail)
    load = make_loader(b"value")
    for _ in range(3):
        assert await cache.get_or_load("key", REPRESENTATION, load) == b"value"


async def test_a_reader_that_is_cancelled_does_not_cancel_the_load_of_the_others(
    cache: Cache, own_valkey: Valkey
) -> None:
    loader = SlowLoader()
    first = asyncio.create_task(cache.get_or_load("key", REPRESENTATION, loader.load))
    await loader.wait_for_calls(1)
    second = asyncio.create_task(cache.get_or_load("key", REPRESENTATION, loader.load))
    await wait_for_commands(own_valkey, "set", 2)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    loader.finish.set()
    assert await second == b"1"
    assert loader.calls == 1


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_the_error_of_a_load_whose_reader_was_cancelled_is_not_logged(
    cache: Cache, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    loader = SlowLoader()
    has_failed = asyncio.Event()

    async def fail() -> bytes:
        await loader.load()
        has_failed.set()
        raise error

    reader = asyncio.create_task(cache.get_or_load("key", REPRESENTATION, fail))
    await loader.wait_for_calls(1)
    reader.cancel()
    with suppress(asyncio.CancelledError):
        await reader
    loader.finish.set()
    await has_failed.wait()
    await asyncio.sleep(0)  # the callbacks of the task
    gc.collect()
    assert caplog.records == []


async def test_the_value_of_another_representation_counts_as_a_miss_and_is_replaced(
    cache: Cache, own_valkey: Valkey
) -> None:
    await cache.get_or_load("key", b"old release", make_loader(b"old bytes"))
    load = make_loader(b"new bytes")
    assert await cache.get_or_load("key", b"new release", load) == b"new bytes"
    assert await cache.get_or_load("key", b"new release", load) == b"new bytes"
    assert await cache.get_or_load("key", b"old release", make_loader(b"old")) == b"old"
    async with Redis.from_url(own_valkey.url) as redis:
        assert await redis.ttl("key") > 0
        await redis.set("key", b"a value of another program")
    assert await cache.get_or_load("key", b"old release", make_loader(b"older")) == b"older"


async def test_a_reader_of_another_representation_does_not_store_after_a_write(
    cache: Cache,
) -> None:
    await cache.get_or_load("key", b"old release", make_loader(b"old bytes"))
    loader = SlowLoader()
    reader = asyncio.create_task(cache.get_or_load("key", b"new release", loader.load))
    await loader.wait_for_calls(1)
    await cache.invalidate("key")
    loader.finish.set()
    assert await reader == b"1"
    assert await cache.get_or_load("key", b"new release", make_loader(b"new")) == b"new"


async def test_two_releases_that_replace_each_others_values_all_get_their_own(
    cache: Cache,
) -> None:
    async def read(release: bytes) -> None:
        for _ in range(20):
            assert await cache.get_or_load("key", release, make_loader(release)) == release

    await asyncio.gather(*[read(release) for release in (b"first", b"second", b"third") * 5])


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
            assert int(await cache.get_or_load("key", REPRESENTATION, load)) >= acknowledged_before
            reads += 1
        return reads

    writer = asyncio.create_task(write())
    reads = await asyncio.gather(*[read(writer) for _ in range(8)])
    assert sum(reads) > 300


async def test_values_are_loaded_if_there_is_no_server(make_settings: MakeSettings) -> None:
    async with open_cache(make_settings(redis_url=f"redis://127.0.0.1:{free_port()}")) as cache:
        assert await cache.get_or_load("key", REPRESENTATION, make_loader(b"value")) == b"value"
        await cache.invalidate("key")
        assert await cache.status() == "unreachable"


async def test_values_are_loaded_if_the_password_is_wrong(
    own_valkey: Valkey, make_settings: MakeSettings
) -> None:
    url = f"redis://:wrong@127.0.0.1:{own_valkey.port}"
    async with open_cache(make_settings(redis_url=url)) as cache:
        assert await cache.get_or_load("key", REPRESENTATION, make_loader(b"value")) == b"value"
        assert await cache.status() == "misconfigured"


@pytest.mark.parametrize("forbidden", ["eval", "set", "get", "del"])
async def test_the_status_and_the_log_show_a_command_that_redis_refuses(
    own_valkey: Valkey, make_settings: MakeSettings, log_lines: LogLines, forbidden: str
) -> None:
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.acl_setuser(
            "app",
            enabled=True,
            passwords=["+hidden"],
            keys=["*"],
            categories=["+@all"],
            commands=[f"-{forbidden}"],
        )
    url = f"redis://app:hidden@127.0.0.1:{own_valkey.port}"
    async with open_cache(make_settings(redis_url=url)) as cache:
        assert await cache.get_or_load("key", REPRESENTATION, make_loader(b"value")) == b"value"
        assert await cache.status() == "misconfigured"
    errors = {line["error"] for line in log_lines() if line["message"] == "cache failed"}
    assert any(forbidden in error for error in errors)
    assert "hidden" not in str(log_lines())


async def test_the_documented_permissions_are_enough(
    own_valkey: Valkey, make_settings: MakeSettings, log_lines: LogLines
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    [rule] = re.findall("ACL SETUSER app (.*)", page)
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.execute_command(  # type: ignore[no-untyped-call]
            "ACL", "SETUSER", "app", *rule.split()
        )
    password = rule.split(">")[1].split()[0]
    url = f"redis://app:{password}@127.0.0.1:{own_valkey.port}"
    async with open_cache(make_settings(redis_url=url)) as cache:
        load = make_loader(b"value")
        for _ in range(2):
            assert await cache.get_or_load("books:1", REPRESENTATION, load) == b"value"
        await cache.invalidate("books:1")
        assert await cache.get_or_load("books:1", REPRESENTATION, make_loader(b"new")) == b"new"
        assert await cache.status() == "ok"
    assert log_lines() == []


async def test_an_error_of_one_key_does_not_close_the_cache_for_the_others(
    cache: Cache, own_valkey: Valkey
) -> None:
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.rpush("list", "something else")
    load = make_loader(b"value")
    for _ in range(3):
        assert await cache.get_or_load("list", REPRESENTATION, make_loader(b"list")) == b"list"
        assert await cache.get_or_load("key", REPRESENTATION, load) == b"value"


async def test_more_readers_than_connections_all_use_redis(
    own_valkey: Valkey, make_settings: MakeSettings
) -> None:
    keys = [f"{number}" for number in range(500)]
    settings = make_settings(redis_url=own_valkey.url, redis_pool_size=2)
    async with open_cache(settings) as cache:
        for load in (make_loader(*[b"value"] * len(keys)), make_loader()):
            await asyncio.gather(*[cache.get_or_load(key, REPRESENTATION, load) for key in keys])
    async with Redis.from_url(own_valkey.url) as redis:
        assert (await redis.info("stats"))["total_connections_received"] < 10


async def test_the_time_in_which_the_process_is_blocked_does_not_count_for_a_command(
    own_valkey: Valkey, make_settings: MakeSettings
) -> None:
    """The event loop is blocked for three times the time limit while a command waits."""
    load = make_loader(b"value")
    async with open_cache(make_settings(redis_url=own_valkey.url, redis_timeout=1)) as cache:
        assert await cache.get_or_load("key", REPRESENTATION, load) == b"value"
        reader = asyncio.create_task(cache.get_or_load("key", REPRESENTATION, load))
        await asyncio.sleep(0)  # sends the command
        time.sleep(3)
        assert await reader == b"value"


async def test_connections_that_were_reset_while_idle_are_replaced(
    own_valkey: Valkey, make_settings: MakeSettings, log_lines: LogLines
) -> None:
    keys = [f"{number}" for number in range(40)]
    async with faulty_proxy(own_valkey.port) as proxy:
        url = own_valkey.url.replace(f":{own_valkey.port}", f":{proxy.port}")
        async with open_cache(make_settings(redis_url=url, redis_pool_size=len(keys))) as cache:

            async def read_all(load: Loader) -> None:
                await asyncio.gather(
                    *[cache.get_or_load(key, REPRESENTATION, load) for key in keys]
                )

            await read_all(make_loader(*[b"value"] * len(keys)))
            assert await proxy.reset() == len(keys)
            await read_all(make_loader())
            assert await proxy.reset() == len(keys)
            assert await cache.status() == "ok"
    assert log_lines() == []


@pytest.mark.parametrize("failure", ["reset", "silence"])
async def test_an_invalidation_succeeds_although_all_idle_connections_are_dead(
    own_valkey: Valkey, make_settings: MakeSettings, failure: str
) -> None:
    async with faulty_proxy(own_valkey.port) as proxy:
        url = own_valkey.url.replace(f":{own_valkey.port}", f":{proxy.port}")
        async with open_cache(make_settings(redis_url=url, redis_timeout=1)) as cache:
            keys = [f"{number}" for number in range(5)]
            load = make_loader(*[b"old"] * len(keys))
            await asyncio.gather(*[cache.get_or_load(key, REPRESENTATION, load) for key in keys])
            if failure == "reset":
                await proxy.reset()
            else:
                proxy.silence()
            await asyncio.gather(*[cache.invalidate(key) for key in keys])
    async with Redis.from_url(own_valkey.url) as redis:
        assert await redis.keys() == []


async def test_an_invalidation_reaches_the_new_primary_after_a_failover(
    own_valkey: Valkey, tmp_path: Path, make_settings: MakeSettings
) -> None:
    """The pooled connections lead to the old primary, which is a replica now and read-only."""
    new_primary = Valkey(tmp_path / "new")
    async with AsyncExitStack() as stack:
        stack.enter_context(running_servers(new_primary))
        proxy = await stack.enter_async_context(faulty_proxy(own_valkey.port))
        old = await stack.enter_async_context(Redis.from_url(own_valkey.url))
        new = await stack.enter_async_context(Redis.from_url(new_primary.url))
        # One password for both servers, as in a replicated Redis.
        password = own_valkey.url.split(":")[2].split("@")[0]
        await new.config_set("requirepass", password)
        url = own_valkey.url.replace(f":{own_valkey.port}", f":{proxy.port}")
        settings = make_settings(redis_url=url)
        cache = await stack.enter_async_context(open_cache(settings))
        await cache.get_or_load("key", REPRESENTATION, make_loader(b"old"))
        await new.set("key", await old.get("key") or b"")
        await old.replicaof("127.0.0.1", new_primary.port)
        proxy.server_port = new_primary.port
        await cache.invalidate("key")
        assert await new.get("key") is None
        assert await cache.get_or_load("key", REPRESENTATION, make_loader(b"new")) == b"new"


async def test_reads_skip_a_replica_while_the_circuit_is_open(
    own_valkey: Valkey, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "CIRCUIT_OPEN_SECONDS", 3600)
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.replicaof("127.0.0.1", free_port())
        async with open_cache(make_settings(redis_url=own_valkey.url)) as cache:
            for _ in range(10):
                value = await cache.get_or_load("key", REPRESENTATION, make_loader(b"value"))
                assert value == b"value"
            assert await cache.status() == "misconfigured"
        statistics = await redis.info("commandstats")
        assert statistics["cmdstat_set"]["calls"] <= 2


async def test_a_killed_server_is_skipped_and_used_again_after_its_restart(
    cache: Cache, own_valkey: Valkey
) -> None:
    await cache.get_or_load("key", REPRESENTATION, make_loader(b"cached"))
    own_valkey.stop(signal.SIGKILL)
    for number in range(5):
        value = f"{number}".encode()
        assert await cache.get_or_load("key", REPRESENTATION, make_loader(value)) == value
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
                    assert (
                        await cache.get_or_load("key", REPRESENTATION, make_loader(value)) == value
                    )
        finally:
            own_valkey.thaw()


async def test_a_server_that_hangs_delays_an_invalidation_by_one_timeout(
    own_valkey: Valkey, make_settings: MakeSettings
) -> None:
    """It is repeated on a new connection, and both attempts together have one timeout."""
    timeout_seconds = 4
    settings = make_settings(redis_url=own_valkey.url, redis_timeout=timeout_seconds)
    async with open_cache(settings) as cache:
        await cache.get_or_load("key", REPRESENTATION, make_loader(b"value"))
        own_valkey.freeze()
        try:
            async with asyncio.timeout(timeout_seconds + 2):
                await cache.invalidate("key")
        finally:
            own_valkey.thaw()


async def test_a_value_that_another_program_stored_under_the_key_is_not_returned(
    cache: Cache, own_valkey: Valkey
) -> None:
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.set("key", b"something else")
        assert await cache.get_or_load("key", REPRESENTATION, make_loader(b"value")) == b"value"
        await redis.delete("key")
        await redis.rpush("key", "a list")
        assert await cache.get_or_load("key", REPRESENTATION, make_loader(b"value")) == b"value"
