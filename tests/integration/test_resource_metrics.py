"""The metrics of the pool and the cache, on a real PostgreSQL and a real Valkey."""

import asyncio

import httpx
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from fastapi_k8s.dependencies import CacheDep, DatabaseDep
from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve
from tools.dev.servers import Valkey

USED = "db_client_connection_count{used}"
IDLE = "db_client_connection_count{idle}"
PENDING = "db_client_connection_pending_requests"
TIMEOUTS = "db_client_connection_timeouts_total"
WAIT_TIME = "db_client_connection_wait_time_seconds"


def create_app_with_resources(make_settings: MakeSettings, **settings: object) -> FastAPI:
    """The application with routes that use or hold a connection, or read from the cache."""
    app = create_app(make_settings(**settings))
    app.state.may_end = asyncio.Event()

    @app.get("/used")
    async def use_connection(database: DatabaseDep) -> None:
        async with database.connection():
            pass

    @app.get("/held")
    async def hold_connection(database: DatabaseDep) -> None:
        async with database.connection():
            await app.state.may_end.wait()

    @app.get("/cached/{key}")
    async def read(key: str, cache: CacheDep) -> str:
        async def load() -> bytes:
            return b"value"

        return (await cache.get_or_load(key, b"representation", load)).decode()

    return app


async def read_samples(client: httpx.AsyncClient) -> dict[str, float]:
    """The values of all samples, those with labels by `name{value}`."""
    samples = {}
    for metric in text_string_to_metric_families((await client.get("/metrics")).text):
        for sample in metric.samples:
            labels = ",".join(sample.labels.values())
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


async def wait_for_sample(client: httpx.AsyncClient, name: str, value: float) -> dict[str, float]:
    """The samples, as soon as one of them has this value."""
    async with asyncio.timeout(20):
        while True:
            samples = await read_samples(client)
            if samples[name] == value:
                return samples
            await asyncio.sleep(0.02)


async def test_the_pool_reports_its_connections_and_how_long_requests_wait_for_them(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app_with_resources(make_settings, database_pool_size=2)
    async with serve(app) as client:
        before = await read_samples(client)
        assert before["db_client_connection_max"] == 2
        assert before[USED] == before[IDLE] == 0
        async with asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(client.get("/held"))
            held = await wait_for_sample(client, PENDING, 3)
            assert (held[USED], held[IDLE]) == (2, 0)
            await asyncio.sleep(0.01)
            app.state.may_end.set()
        after = await read_samples(client)
    assert (after[USED], after[IDLE], after[PENDING]) == (0, 2, 0)
    increments = {name: value - before[name] for name, value in after.items() if name in before}
    assert increments[f"{WAIT_TIME}_count"] == 5
    assert increments[f"{WAIT_TIME}_bucket{{0.001}}"] == 2, "two requests did not wait"
    assert increments[f"{WAIT_TIME}_sum"] > 3 * 0.01
    assert increments[TIMEOUTS] == 0


async def test_requests_that_get_no_connection_in_time_are_counted(
    make_settings: MakeSettings, serve: Serve
) -> None:
    settings = {"database_pool_size": 1, "database_pool_timeout": 0.1}
    app = create_app_with_resources(make_settings, **settings)
    async with serve(app) as client, asyncio.TaskGroup() as tasks:
        # The time limit also applies to the opening of the connection, which may need another try.
        while (await client.get("/used")).status_code == 503:
            pass
        tasks.create_task(client.get("/held"))
        before = await wait_for_sample(client, USED, 1)
        for _ in range(3):
            assert (await client.get("/held")).status_code == 503
        after = await read_samples(client)
        app.state.may_end.set()
    assert after[TIMEOUTS] - before[TIMEOUTS] == 3
    assert after[f"{WAIT_TIME}_count"] == before[f"{WAIT_TIME}_count"]


async def test_the_cache_reports_hits_misses_errors_and_its_circuit(
    make_settings: MakeSettings, serve: Serve, own_valkey: Valkey
) -> None:
    settings = {"redis_url": own_valkey.url, "redis_timeout": 0.5}
    async with serve(create_app_with_resources(make_settings, **settings)) as client:
        before = await read_samples(client)
        for _ in range(3):
            assert (await client.get("/cached/key")).json() == "value"
        after = await read_samples(client)
        increments = {name: after[name] - before[name] for name in before}
        assert increments["cache_reads_total{miss}"] == 1
        assert increments["cache_reads_total{hit}"] == 2
        assert increments["cache_reads_total{bypass}"] == increments["cache_errors_total"] == 0
        assert after["cache_circuit_open"] == 0

        own_valkey.freeze()
        for _ in range(3):
            assert (await client.get("/cached/key")).json() == "value"
        failed = await read_samples(client)
        assert failed["cache_circuit_open"] == 1
        assert failed["cache_reads_total{bypass}"] - after["cache_reads_total{bypass}"] == 3
        assert failed["cache_errors_total"] > after["cache_errors_total"]
        own_valkey.thaw()
        await wait_for_sample(client, "cache_circuit_open", 0)


async def test_without_a_cache_no_read_is_counted(
    make_settings: MakeSettings, serve: Serve
) -> None:
    async with serve(create_app_with_resources(make_settings, redis_url="")) as client:
        before = await read_samples(client)
        assert (await client.get("/cached/key")).json() == "value"
        after = await read_samples(client)
    for result in ("hit", "miss", "bypass"):
        name = f"cache_reads_total{{{result}}}"
        assert after[name] == before[name]
    assert after["cache_circuit_open"] == 0
