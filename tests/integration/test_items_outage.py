"""Items while Redis or PostgreSQL is gone, and what readers see while others write."""

import asyncio
import signal
from collections.abc import AsyncIterator

import httpx
import pytest

from fastapi_k8s.main import create_app
from fastapi_k8s.migrations.migrate import migrate
from tests.conftest import MakeSettings, Serve
from tests.integration.conftest import until
from tools.dev.servers import Postgres, Valkey


async def create(client: httpx.AsyncClient) -> str:
    answer = await client.post("/items", json={"name": "0"})
    assert answer.status_code == 201
    return answer.headers["location"]


async def replace(client: httpx.AsyncClient, location: str, name: str) -> httpx.Response:
    return await client.put(location, json={"name": name}, headers={"If-Match": "*"})


async def test_no_reader_sees_an_older_version_after_a_write_was_acknowledged(
    make_settings: MakeSettings, serve: Serve
) -> None:
    """Two services on one database and one cache, as two pods are."""
    settings = make_settings()
    async with serve(create_app(settings)) as writing, serve(create_app(settings)) as reading:
        location = await create(writing)
        acknowledged = 0

        async def write() -> None:
            nonlocal acknowledged
            for number in range(1, 60):
                assert (await replace(writing, location, f"{number}")).status_code == 200
                acknowledged = number

        async def read(client: httpx.AsyncClient) -> None:
            while not writer.done():
                known = acknowledged
                assert int((await client.get(location)).json()["name"]) >= known

        writer = asyncio.create_task(write())
        await asyncio.gather(*(read(client) for client in [reading, writing] * 4))
        await writer
        assert (await reading.get(location)).json()["name"] == f"{acknowledged}"


@pytest.mark.parametrize("outage", ["killed", "frozen"])
async def test_without_redis_reads_and_writes_go_on_and_are_never_stale(
    own_valkey: Valkey, make_settings: MakeSettings, serve: Serve, outage: str
) -> None:
    settings = make_settings(redis_url=own_valkey.url, redis_timeout=0.3)
    async with serve(create_app(settings)) as client:
        location = await create(client)
        await client.get(location)  # into the cache
        if outage == "killed":
            own_valkey.stop(signal.SIGKILL)
        else:
            own_valkey.freeze()
        for number in range(1, 4):
            assert (await replace(client, location, f"{number}")).status_code == 200
            assert (await client.get(location)).json()["name"] == f"{number}"
        assert (await client.get("/ready")).status_code == 200
        if outage == "killed":
            own_valkey.start()
        else:
            own_valkey.thaw()
        async with asyncio.timeout(20):
            while (await client.get("/ready")).json()["checks"]["cache"] != "ok":
                await asyncio.sleep(0.05)
        assert (await replace(client, location, "last")).status_code == 200
        assert (await client.get(location)).json()["name"] == "last"


@pytest.fixture
async def service(
    own_postgres: Postgres, make_settings: MakeSettings, serve: Serve
) -> AsyncIterator[httpx.AsyncClient]:
    settings = make_settings(database_url=own_postgres.url)
    await migrate(settings, wait_seconds=0)
    async with serve(create_app(settings)) as client:
        yield client


async def test_without_postgresql_writes_are_503_and_acknowledged_ones_are_there_afterwards(
    service: httpx.AsyncClient, own_postgres: Postgres
) -> None:
    """PostgreSQL is killed while clients create: each answer is 201 or 503, and no 201 is lost."""
    acknowledged: list[str] = []
    statuses: set[int] = set()

    async def write() -> None:
        while 503 not in statuses:
            answer = await service.post("/items", json={"name": "Lamp"})
            statuses.add(answer.status_code)
            if answer.status_code == 201:
                acknowledged.append(answer.headers["location"])

    writers = [asyncio.create_task(write()) for _ in range(4)]
    async with asyncio.timeout(20):
        while len(acknowledged) < 20:
            await asyncio.sleep(0.01)
    await asyncio.to_thread(own_postgres.stop, signal.SIGKILL)
    await asyncio.gather(*writers)
    assert statuses == {201, 503}
    assert (await service.get("/health")).status_code == 200
    await until(service, 503)

    await asyncio.to_thread(own_postgres.start)
    await until(service, 200)
    for location in acknowledged:
        assert (await service.get(location)).status_code == 200
    assert (await service.post("/items", json={"name": "Lamp"})).status_code == 201
