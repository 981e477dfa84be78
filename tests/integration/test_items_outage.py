"""Reads of items are never stale, and no acknowledged write is lost, also during outages."""

import asyncio
import signal
from collections.abc import AsyncIterator

import httpx
import pytest
from redis.asyncio import Redis

from fastapi_k8s.main import create_app
from fastapi_k8s.migrations.migrate import migrate
from tests.conftest import MakeSettings, Serve
from tests.integration.conftest import execute_sql, fetch_rows, wait_for_ready_status
from tests.integration.proxies import faulty_proxy
from tools.dev.servers import Postgres, Valkey


async def create_item(client: httpx.AsyncClient) -> str:
    """Create an item with the name `0` and return its path."""
    response = await client.post("/items", json={"name": "0"})
    assert response.status_code == 201
    return response.headers["location"]


async def rename_item(client: httpx.AsyncClient, location: str, name: str) -> None:
    response = await client.put(location, json={"name": name}, headers={"If-Match": "*"})
    assert response.status_code == 200


async def read_name(client: httpx.AsyncClient, location: str) -> str:
    response = await client.get(location)
    return str(response.json()["name"])


async def wait_for_rows(database_url: str, query: str) -> None:
    """Wait until the query has a result."""
    async with asyncio.timeout(20):
        while not await fetch_rows(database_url, query):
            await asyncio.sleep(0.02)


async def wait_until_cache_is_ok(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while (await client.get("/ready")).json()["checks"]["cache"] != "ok":
            await asyncio.sleep(0.05)


async def test_no_reader_sees_an_old_version_after_an_acknowledged_write(
    make_settings: MakeSettings, serve: Serve
) -> None:
    """Two applications use one database and one cache, like two pods. One of them writes."""
    settings = make_settings()
    async with (
        serve(create_app(settings)) as writing_client,
        serve(create_app(settings)) as reading_client,
    ):
        location = await create_item(writing_client)
        acknowledged = 0

        async def write() -> None:
            nonlocal acknowledged
            for number in range(1, 60):
                await rename_item(writing_client, location, f"{number}")
                acknowledged = number

        async def read(client: httpx.AsyncClient) -> None:
            while not writer.done():
                acknowledged_before = acknowledged
                assert int(await read_name(client, location)) >= acknowledged_before

        writer = asyncio.create_task(write())
        readers = [read(client) for client in [reading_client, writing_client] * 4]
        await asyncio.gather(*readers)
        await writer
        assert await read_name(reading_client, location) == f"{acknowledged}"


@pytest.mark.parametrize("outage", ["killed", "frozen"])
async def test_without_redis_writes_succeed_and_reads_are_not_stale(
    own_valkey: Valkey, make_settings: MakeSettings, serve: Serve, outage: str
) -> None:
    settings = make_settings(redis_url=own_valkey.url, redis_timeout=0.3)
    async with serve(create_app(settings)) as client:
        location = await create_item(client)
        await client.get(location)  # stores the item in the cache
        if outage == "killed":
            own_valkey.stop(signal.SIGKILL)
        else:
            own_valkey.freeze()
        for name in ("1", "2", "3"):
            await rename_item(client, location, name)
            assert await read_name(client, location) == name
        assert (await client.get("/ready")).status_code == 200
        if outage == "killed":
            own_valkey.start()
        else:
            own_valkey.thaw()
        await wait_until_cache_is_ok(client)
        await rename_item(client, location, "last")
        assert await read_name(client, location) == "last"


async def test_a_refused_write_does_not_remove_the_cached_item(
    own_valkey: Valkey, make_settings: MakeSettings, serve: Serve
) -> None:
    async with (
        serve(create_app(make_settings(redis_url=own_valkey.url))) as client,
        Redis.from_url(own_valkey.url) as redis,
    ):
        location = await create_item(client)
        await client.get(location)  # stores the item in the cache
        key = f"items:{location.removeprefix('/items/')}"
        value = await redis.get(key)
        assert value is not None
        outdated = {"If-Match": '"outdated"'}
        for response in (
            await client.put(location, json={"name": "1"}, headers=outdated),
            await client.delete(location, headers=outdated),
            await client.put(location, json={"name": ""}, headers={"If-Match": "*"}),
        ):
            assert response.status_code in {412, 422}
            assert await redis.get(key) == value
        await rename_item(client, location, "1")
        assert await redis.get(key) is None


async def test_a_write_that_is_committed_without_a_confirmation_removes_the_cached_item(
    postgres: Postgres,
    own_valkey: Valkey,
    database_url: str,
    make_settings: MakeSettings,
    serve: Serve,
) -> None:
    """The connection fails while PostgreSQL commits, which takes a second here."""
    await execute_sql(
        database_url,
        """
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER wait AFTER UPDATE ON items
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()
        """,
    )
    async with faulty_proxy(postgres.port) as proxy:
        url = database_url.replace(f":{postgres.port}", f":{proxy.port}")
        settings = make_settings(database_url=url, redis_url=own_valkey.url)
        async with serve(create_app(settings)) as client:
            location = await create_item(client)
            await client.get(location)  # stores the item in the cache
            write = asyncio.create_task(
                client.put(location, json={"name": "1"}, headers={"If-Match": "*"})
            )
            await wait_for_rows(
                database_url,
                "SELECT 1 FROM pg_stat_activity WHERE query ~ '^COMMIT' AND state = 'active'",
            )
            await proxy.reset()
            assert (await write).status_code == 503
            await wait_for_rows(database_url, "SELECT 1 FROM items WHERE name = '1'")
            assert await read_name(client, location) == "1"


async def test_reads_and_writes_succeed_after_idle_connections_to_redis_were_reset(
    own_valkey: Valkey, make_settings: MakeSettings, serve: Serve
) -> None:
    async with faulty_proxy(own_valkey.port) as proxy:
        url = own_valkey.url.replace(f":{own_valkey.port}", f":{proxy.port}")
        async with serve(create_app(make_settings(redis_url=url))) as client:
            locations = [await create_item(client) for _ in range(40)]
            for name in ("1", "2"):
                await asyncio.gather(*[client.get(location) for location in locations])
                assert (await client.get("/ready")).json()["checks"]["cache"] == "ok"
                assert await proxy.reset() > 0
                await asyncio.gather(
                    *[rename_item(client, location, name) for location in locations]
                )
                assert await proxy.reset() > 0
                for location in locations:
                    assert await read_name(client, location) == name


@pytest.fixture
async def service(
    own_postgres: Postgres, make_settings: MakeSettings, serve: Serve
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application on `own_postgres`."""
    settings = make_settings(database_url=own_postgres.url)
    await migrate(settings, wait_seconds=30)
    async with serve(create_app(settings)) as client:
        yield client


async def test_without_postgresql_writes_are_503_and_no_acknowledged_write_is_lost(
    service: httpx.AsyncClient, own_postgres: Postgres
) -> None:
    """PostgreSQL is killed while clients create items. Each response is 201 or 503."""
    acknowledged: list[str] = []
    statuses: set[int] = set()

    async def create_until_unavailable() -> None:
        while 503 not in statuses:
            response = await service.post("/items", json={"name": "Lamp"})
            statuses.add(response.status_code)
            if response.status_code == 201:
                acknowledged.append(response.headers["location"])

    writers = [asyncio.create_task(create_until_unavailable()) for _ in range(4)]
    async with asyncio.timeout(20):
        while len(acknowledged) < 20:
            await asyncio.sleep(0.01)
    await asyncio.to_thread(own_postgres.stop, signal.SIGKILL)
    await asyncio.gather(*writers)
    assert statuses == {201, 503}
    assert (await service.get("/health")).status_code == 200
    await wait_for_ready_status(service, 503)

    await asyncio.to_thread(own_postgres.start)
    await wait_for_ready_status(service, 200)
    for location in acknowledged:
        assert (await service.get(location)).status_code == 200
    assert (await service.post("/items", json={"name": "Lamp"})).status_code == 201
