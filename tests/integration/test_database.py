"""The pool on a real PostgreSQL: every wait has a limit, and the service recovers from outages."""

import asyncio
import signal
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from fastapi_k8s.dependencies import DatabaseDep
from fastapi_k8s.main import create_app
from fastapi_k8s.migrations.migrate import MigrationError, migrate
from fastapi_k8s.settings import Settings
from tests.conftest import MakeSettings, Serve
from tests.integration.conftest import execute_sql, wait_for_ready_status
from tools.dev.servers import Postgres

COUNT_SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


def create_app_with_sleep(settings: Settings) -> FastAPI:
    """The application with `POST /sleep/{seconds}`, which occupies a connection for that time."""
    app = create_app(settings)

    @app.post("/sleep/{seconds}")
    async def sleep(seconds: float, database: DatabaseDep) -> None:
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_sleep($1)", seconds)

    return app


async def wait_until_sleeping(server: Postgres, statements: int) -> None:
    """Wait until PostgreSQL executes this number of sleeping statements."""
    connection = await asyncpg.connect(server.url)
    async with asyncio.timeout(10):
        while await connection.fetchval(COUNT_SLEEPING) < statements:
            await asyncio.sleep(0.01)
    await connection.close()


async def read_database_check(client: httpx.AsyncClient) -> str:
    """What /ready reports about the database."""
    response = await client.get("/ready")
    return str(response.json()["checks"]["database"])


@pytest.fixture
async def migrated_postgres(own_postgres: Postgres, make_settings: MakeSettings) -> Postgres:
    await migrate(make_settings(database_url=own_postgres.url), wait_seconds=30)
    return own_postgres


@pytest.fixture
async def service(
    migrated_postgres: Postgres, make_settings: MakeSettings, serve: Serve
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with /sleep, with short timeouts, on `migrated_postgres`."""
    settings = make_settings(
        database_url=migrated_postgres.url, database_pool_timeout=0.5, database_statement_timeout=2
    )
    async with serve(create_app_with_sleep(settings)) as client:
        yield client


async def test_an_exhausted_pool_is_503_after_the_pool_timeout_and_stays_ready(
    make_settings: MakeSettings, serve: Serve
) -> None:
    settings = make_settings(database_pool_size=2, database_pool_timeout=0.2)
    async with serve(create_app_with_sleep(settings)) as client:
        occupying = [asyncio.create_task(client.post("/sleep/2")) for _ in range(2)]
        async with asyncio.timeout(10):
            while True:
                response = await client.post("/sleep/0")
                if response.status_code != 200:
                    break
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.headers["content-type"] == "application/problem+json"
        assert (await client.get("/ready")).status_code == 200
        for response in await asyncio.gather(*occupying):
            assert response.status_code == 200
        assert (await client.post("/sleep/0")).status_code == 200


async def test_a_statement_that_exceeds_its_timeout_is_503_and_frees_the_connection(
    make_settings: MakeSettings, serve: Serve
) -> None:
    settings = make_settings(database_pool_size=1, database_statement_timeout=0.2)
    async with serve(create_app_with_sleep(settings)) as client:
        assert (await client.post("/sleep/30")).status_code == 503
        assert (await client.post("/sleep/0")).status_code == 200


async def test_a_service_that_starts_before_its_database_becomes_ready(
    migrated_postgres: Postgres, make_settings: MakeSettings, serve: Serve
) -> None:
    migrated_postgres.stop()
    async with serve(create_app(make_settings(database_url=migrated_postgres.url))) as client:
        assert (await client.get("/health")).status_code == 200
        response = await client.get("/ready")
        assert response.status_code == 503
        assert response.json()["checks"] == {"database": "unreachable", "cache": "ok"}
        migrated_postgres.start()
        await wait_for_ready_status(client, 200)


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGKILL])
async def test_the_service_is_unready_while_the_database_is_down_and_then_recovers(
    service: httpx.AsyncClient, migrated_postgres: Postgres, stop_signal: signal.Signals
) -> None:
    await wait_for_ready_status(service, 200)
    in_progress = [asyncio.create_task(service.post("/sleep/30")) for _ in range(5)]
    await wait_until_sleeping(migrated_postgres, 5)
    migrated_postgres.stop(stop_signal)
    for response in await asyncio.gather(*in_progress):
        assert response.status_code == 503
    assert (await service.post("/sleep/0")).status_code == 503
    assert (await service.get("/health")).status_code == 200
    unready = await wait_for_ready_status(service, 503)
    assert unready.json()["checks"]["database"] == "unreachable"
    migrated_postgres.start()
    await wait_for_ready_status(service, 200)
    assert (await service.post("/sleep/0")).status_code == 200


async def test_requests_do_not_wait_longer_than_the_timeouts_while_the_database_hangs(
    service: httpx.AsyncClient, migrated_postgres: Postgres
) -> None:
    await wait_for_ready_status(service, 200)
    assert (await service.post("/sleep/0")).status_code == 200
    migrated_postgres.freeze()
    try:
        async with asyncio.timeout(15):
            assert (await service.post("/sleep/0")).status_code == 503
            unready = await wait_for_ready_status(service, 503)
            assert unready.json()["checks"]["database"] == "timeout"
            assert (await service.get("/health")).status_code == 200
    finally:
        migrated_postgres.thaw()
    await wait_for_ready_status(service, 200)


async def test_a_database_without_a_schema_is_unready(
    empty_database: str, make_settings: MakeSettings, serve: Serve
) -> None:
    async with serve(create_app(make_settings(database_url=empty_database))) as client:
        response = await client.get("/ready")
        assert response.status_code == 503
        assert response.json()["checks"]["database"] == "behind"


@pytest.mark.parametrize(
    ("revision", "status", "check"), [("0000", 503, "behind"), ("9999", 200, "ok")]
)
async def test_an_older_schema_is_unready_and_a_newer_one_is_ready(
    client: httpx.AsyncClient, database_url: str, revision: str, status: int, check: str
) -> None:
    await execute_sql(database_url, f"UPDATE alembic_version SET version_num = '{revision}'")
    response = await client.get("/ready")
    assert (response.status_code, response.json()["checks"]["database"]) == (status, check)


@pytest.mark.parametrize(
    "options",
    [
        "sslmode=disable",
        "sslmode=prefer",
        "channel_binding=prefer&connect_timeout=5&pgbouncer=true",
        "keepalives=1&keepalives_idle=30",
        "application_name=orders&options=-csearch_path%3Dpublic",
        "target_session_attrs=read-write",
    ],
)
async def test_options_in_the_urls_of_hosting_providers_are_accepted(
    options: str, database_url: str, make_settings: MakeSettings, serve: Serve
) -> None:
    url = database_url.replace("postgresql://", "postgres://") + f"?{options}"
    settings = make_settings(database_url=url)
    await migrate(settings, wait_seconds=30)
    async with serve(create_app(settings)) as client:
        assert (await client.get("/ready")).status_code == 200


async def test_with_a_parameter_that_the_server_refuses_migrate_fails_at_once(
    database_url: str, make_settings: MakeSettings, serve: Serve
) -> None:
    settings = make_settings(database_url=f"{database_url}?options=-cunknown%3D1")
    with pytest.raises(MigrationError, match="unknown"):
        await migrate(settings, wait_seconds=3600)
    async with serve(create_app(settings)) as client:
        assert await read_database_check(client) == "unreachable"


async def test_sslmode_require_refuses_a_server_without_tls(
    database_url: str, make_settings: MakeSettings, serve: Serve
) -> None:
    settings = make_settings(database_url=f"{database_url}?sslmode=require")
    async with serve(create_app(settings)) as client:
        assert await read_database_check(client) == "unreachable"


async def test_a_wrong_password_or_database_is_unready(
    database_url: str, make_settings: MakeSettings, serve: Serve
) -> None:
    wrong_password = database_url.replace("postgres:", "postgres:x")
    wrong_database = f"{database_url}x"
    for url in (wrong_password, wrong_database):
        async with serve(create_app(make_settings(database_url=url))) as client:
            assert await read_database_check(client) == "unreachable"
