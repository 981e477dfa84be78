"""The pool on a real PostgreSQL: bounded waits, and back by itself after an outage."""

import asyncio
import signal
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from fastapi import FastAPI, Request

from fastapi_k8s.database import UNAVAILABLE_ERRORS
from fastapi_k8s.main import create_app
from fastapi_k8s.migrations.migrate import migrate
from tests.conftest import MakeSettings, Serve
from tests.integration.conftest import admin, until
from tools.dev.servers import Postgres

ASLEEP = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


def with_sleep(app: FastAPI) -> FastAPI:
    """The service, and POST /sleep, which keeps a connection for so many seconds."""

    @app.post("/sleep/{seconds}")
    async def sleep(seconds: float, request: Request) -> None:
        async with request.state.database.transaction() as connection:
            await connection.execute("SELECT pg_sleep($1)", seconds)

    return app


async def until_asleep(server: Postgres, number: int) -> None:
    """Wait until so many statements sleep in PostgreSQL."""
    connection = await asyncpg.connect(server.url)
    async with asyncio.timeout(10):
        while await connection.fetchval(ASLEEP) < number:
            await asyncio.sleep(0.01)
    await connection.close()


@pytest.fixture
async def migrated(own_postgres: Postgres, make_settings: MakeSettings) -> Postgres:
    await migrate(make_settings(database_url=own_postgres.url), wait_seconds=0)
    return own_postgres


@pytest.fixture
async def service(
    migrated: Postgres, make_settings: MakeSettings, serve: Serve
) -> AsyncIterator[httpx.AsyncClient]:
    settings = make_settings(
        database_url=migrated.url, database_pool_timeout=0.5, database_statement_timeout=2
    )
    async with serve(with_sleep(create_app(settings))) as client:
        yield client


async def test_an_exhausted_pool_answers_503_with_retry_after(
    make_settings: MakeSettings, serve: Serve
) -> None:
    settings = make_settings(database_pool_size=2, database_pool_timeout=0.2)
    async with serve(with_sleep(create_app(settings))) as client:
        busy = [asyncio.create_task(client.post("/sleep/2")) for _ in range(2)]
        async with asyncio.timeout(10):
            while (answer := await client.post("/sleep/0")).status_code == 200:
                pass
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/problem+json"
        assert (await client.get("/ready")).status_code == 200, "a busy pool is not a dead database"
        assert {each.status_code for each in await asyncio.gather(*busy)} == {200}
        assert (await client.post("/sleep/0")).status_code == 200


async def test_a_statement_over_its_time_limit_answers_503(
    make_settings: MakeSettings, serve: Serve
) -> None:
    settings = make_settings(database_pool_size=1, database_statement_timeout=0.2)
    async with serve(with_sleep(create_app(settings))) as client:
        assert (await client.post("/sleep/30")).status_code == 503
        assert (await client.post("/sleep/0")).status_code == 200, "the connection is usable again"


async def test_a_value_of_a_wrong_type_is_a_fault_and_not_an_outage(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings())

    @app.get("/faulty")
    async def faulty(request: Request) -> None:
        async with request.state.database.connection() as connection:
            await connection.execute("SELECT $1::integer", "one")

    async with serve(app) as client:
        assert (await client.get("/faulty")).status_code == 500


async def test_started_before_its_database_the_service_becomes_ready_by_itself(
    migrated: Postgres, make_settings: MakeSettings, serve: Serve
) -> None:
    migrated.stop()
    async with serve(create_app(make_settings(database_url=migrated.url))) as client:
        assert (await client.get("/health")).status_code == 200
        answer = await client.get("/ready")
        assert answer.status_code == 503
        assert answer.json()["checks"] == {"database": "unreachable", "cache": "ok"}
        migrated.start()
        await until(client, 200)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_a_database_that_goes_away_makes_unready_and_comes_back_without_a_restart(
    service: httpx.AsyncClient, migrated: Postgres, how: signal.Signals
) -> None:
    await until(service, 200)
    under_way = [asyncio.create_task(service.post("/sleep/1.5")) for _ in range(5)]
    await until_asleep(migrated, 5)
    migrated.stop(how)
    assert {each.status_code for each in await asyncio.gather(*under_way)} == {503}
    assert (await service.post("/sleep/0")).status_code == 503
    assert (await service.get("/health")).status_code == 200
    assert (await until(service, 503)).json()["checks"]["database"] == "unreachable"
    migrated.start()
    await until(service, 200)
    assert (await service.post("/sleep/0")).status_code == 200


async def test_a_database_that_hangs_delays_nobody_beyond_the_time_limits(
    service: httpx.AsyncClient, migrated: Postgres
) -> None:
    await until(service, 200)
    assert (await service.post("/sleep/0")).status_code == 200
    migrated.freeze()
    try:
        async with asyncio.timeout(15):
            assert (await service.post("/sleep/0")).status_code == 503
            assert (await until(service, 503)).json()["checks"]["database"] == "timeout"
            assert (await service.get("/health")).status_code == 200
    finally:
        migrated.thaw()
    await until(service, 200)


async def test_an_unmigrated_database_makes_unready(
    empty_database: str, make_settings: MakeSettings, serve: Serve
) -> None:
    async with serve(create_app(make_settings(database_url=empty_database))) as client:
        assert (await client.get("/ready")).status_code == 503


@pytest.mark.parametrize(
    ("revision", "answer"),
    [("0000", (503, "behind")), ("9999", (200, "ok"))],
)
async def test_a_schema_behind_makes_unready_and_one_ahead_does_not(
    client: httpx.AsyncClient, database_url: str, revision: str, answer: tuple[int, str]
) -> None:
    await admin(database_url, f"UPDATE alembic_version SET version_num = '{revision}'")
    ready = await client.get("/ready")
    assert (ready.status_code, ready.json()["checks"]["database"]) == answer


@pytest.mark.parametrize(
    "options",
    [
        "sslmode=disable",
        "sslmode=prefer",
        "channel_binding=prefer&connect_timeout=5&pgbouncer=true",
    ],
)
async def test_options_that_providers_print_are_understood(
    options: str, database_url: str, make_settings: MakeSettings, serve: Serve
) -> None:
    url = database_url.replace("postgresql://", "postgres://") + f"?{options}"
    settings = make_settings(database_url=url)
    await migrate(settings, wait_seconds=0)
    async with serve(create_app(settings)) as client:
        assert (await client.get("/ready")).status_code == 200


@pytest.mark.parametrize("option", ["unknown=1", "target_session_attrs=bad"])
async def test_a_wrong_option_makes_unready_and_ends_a_migration_at_once(
    option: str, database_url: str, make_settings: MakeSettings, serve: Serve
) -> None:
    settings = make_settings(database_url=f"{database_url}?{option}")
    with pytest.raises(UNAVAILABLE_ERRORS):
        await migrate(settings, wait_seconds=3600)
    async with serve(create_app(settings)) as client:
        assert (await client.get("/ready")).json()["checks"]["database"] == "unreachable"


async def test_a_required_encryption_that_the_server_lacks_is_not_given_up(
    database_url: str, make_settings: MakeSettings, serve: Serve
) -> None:
    settings = make_settings(database_url=f"{database_url}?sslmode=require")
    async with serve(create_app(settings)) as client:
        assert (await client.get("/ready")).json()["checks"]["database"] == "unreachable"


async def test_a_wrong_password_or_database_makes_unready(
    database_url: str, make_settings: MakeSettings, serve: Serve
) -> None:
    for url in (database_url.replace("postgres:", "postgres:x"), f"{database_url}x"):
        async with serve(create_app(make_settings(database_url=url))) as client:
            assert (await client.get("/ready")).json()["checks"]["database"] == "unreachable"
