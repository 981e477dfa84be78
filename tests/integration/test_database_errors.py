"""Which errors are an outage of PostgreSQL (503), and which are errors in the code (500)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

from fastapi_k8s.connection_pool import Connection
from fastapi_k8s.database import (
    Database,
    DatabaseUnavailableError,
    SchemaChangedError,
    open_database,
    repeat_after_schema_change,
)
from fastapi_k8s.dependencies import DatabaseDep
from fastapi_k8s.main import create_app
from tests.conftest import LogLines, MakeSettings, Serve
from tests.integration.conftest import execute_sql, wait_for_ready_status
from tools.dev.servers import Postgres

Use = Callable[[Connection], Awaitable[object]]
EndReadOnly = Callable[[], Awaitable[None]]

SLOW_STATEMENT = "SELECT pg_sleep(60)"


@pytest.fixture
async def database(make_settings: MakeSettings) -> AsyncIterator[Database]:
    """A pool of two connections."""
    async with open_database(make_settings(), pool_size=2) as database:
        yield database


async def pass_too_few_arguments(connection: Connection) -> None:
    await connection.execute("SELECT $1::integer, $2::integer", 1)


async def pass_a_wrong_type(connection: Connection) -> None:
    await connection.execute("SELECT $1::integer", "one")


async def misspell_a_table(connection: Connection) -> None:
    await connection.execute("SELECT FROM alembic_versoin")


async def run_two_statements_at_once(connection: Connection) -> None:
    await asyncio.gather(connection.execute("SELECT"), connection.execute("SELECT"))


async def open_a_missing_file(_: Connection) -> None:
    Path("/missing").read_bytes()


async def exceed_a_time_limit_of_the_code(connection: Connection) -> None:
    async with asyncio.timeout(0.01):
        await connection.execute(SLOW_STATEMENT)


async def refuse_a_connection_to_something_else(_: Connection) -> None:
    raise ConnectionRefusedError


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (pass_too_few_arguments, asyncpg.InterfaceError),
        (pass_a_wrong_type, asyncpg.DataError),
        (misspell_a_table, asyncpg.UndefinedTableError),
        (run_two_statements_at_once, asyncpg.InterfaceError),
        (open_a_missing_file, FileNotFoundError),
        (exceed_a_time_limit_of_the_code, TimeoutError),
        (refuse_a_connection_to_something_else, ConnectionRefusedError),
    ],
)
async def test_an_error_in_the_code_is_raised_unchanged_and_the_pool_stays_usable(
    database: Database, use: Use, error: type[Exception]
) -> None:
    with pytest.raises(error):
        async with database.connection() as connection:
            await use(connection)
    with pytest.raises(error):
        async with database.transaction() as connection:
            await use(connection)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def catch_an_error_in_a_transaction(database: Database) -> None:
    async with database.transaction() as connection:
        with suppress(asyncpg.UndefinedTableError):
            await misspell_a_table(connection)


async def catch_an_error_in_a_transaction_of_the_caller(database: Database) -> None:
    async with database.connection() as connection, connection.transaction():
        with suppress(asyncpg.UndefinedTableError):
            await misspell_a_table(connection)


@pytest.mark.parametrize(
    "catch_an_error",
    [catch_an_error_in_a_transaction, catch_an_error_in_a_transaction_of_the_caller],
)
async def test_a_transaction_with_a_failed_statement_is_not_acknowledged(
    database: Database, catch_an_error: Callable[[Database], Awaitable[None]]
) -> None:
    """PostgreSQL rolls it back, and responds to COMMIT without an error."""
    with pytest.raises(asyncpg.InFailedSQLTransactionError, match="was rolled back"):
        await catch_an_error(database)


async def test_a_transaction_with_a_failed_savepoint_is_committed(database: Database) -> None:
    async with database.transaction() as connection:
        with suppress(asyncpg.UndefinedTableError):
            async with connection.transaction():
                await misspell_a_table(connection)
        await connection.execute("CREATE TABLE committed ()")
    async with database.connection() as connection:
        assert await connection.fetch("SELECT FROM committed") == []


async def test_an_error_in_the_code_is_500_and_logged_with_its_traceback(
    make_settings: MakeSettings, serve: Serve, log_lines: LogLines
) -> None:
    app = create_app(make_settings())

    @app.get("/misspelt")
    async def misspell(database: DatabaseDep) -> None:
        async with database.connection() as connection:
            await misspell_a_table(connection)

    async with serve(app) as client:
        assert (await client.get("/misspelt")).status_code == 500
    lines = [line for line in log_lines() if "UndefinedTableError" in str(line)]
    assert [line["level"] for line in lines] == ["ERROR"]
    assert "misspell_a_table" in str(lines[0])


async def execute_slow_statement(connection: Connection) -> None:
    await connection.execute(SLOW_STATEMENT)


async def fetch_from_prepared_statement(connection: Connection) -> None:
    statement = await connection.prepare(SLOW_STATEMENT)
    await statement.fetch()


async def fetch_from_cursor(connection: Connection) -> None:
    cursor = await connection.cursor(SLOW_STATEMENT)
    await cursor.fetch(1)


@pytest.mark.parametrize(
    "use", [execute_slow_statement, fetch_from_prepared_statement, fetch_from_cursor]
)
async def test_the_statement_timeout_is_an_outage_however_the_statement_is_executed(
    make_settings: MakeSettings, use: Use
) -> None:
    settings = make_settings(database_statement_timeout=0.2)
    async with open_database(settings, pool_size=1) as database:
        with pytest.raises(DatabaseUnavailableError) as error_info:
            async with database.transaction() as connection:
                await use(connection)
    assert isinstance(error_info.value.__cause__, TimeoutError)


async def test_a_statement_that_waits_for_the_end_of_a_cancelled_one_is_an_outage(
    own_postgres: Postgres, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=own_postgres.url, database_statement_timeout=0.2)

    async def use_after_a_timeout(database: Database) -> None:
        async with database.connection() as connection:
            own_postgres.freeze()
            with suppress(TimeoutError):
                await connection.execute("SELECT 1")
            await connection.execute("SELECT 2", timeout=0.05)

    async with open_database(settings, pool_size=1) as database:
        try:
            with pytest.raises(DatabaseUnavailableError):
                await use_after_a_timeout(database)
        finally:
            own_postgres.thaw()


async def test_a_statement_that_an_administrator_cancels_is_an_outage(database: Database) -> None:
    with pytest.raises(DatabaseUnavailableError):
        async with database.connection() as connection:
            await connection.execute("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)")


async def close_during_a_statement(_: Database, connection: Connection) -> None:
    await connection.execute("SELECT pg_terminate_backend(pg_backend_pid(), 10000)")


async def close_before_a_statement(database: Database, connection: Connection) -> None:
    await close_before_the_commit(database, connection)
    await connection.execute("SELECT")


async def close_before_the_commit(database: Database, connection: Connection) -> None:
    pid = connection.get_server_pid()
    async with database.connection() as other:
        await other.execute("SELECT pg_terminate_backend($1, 10000)", pid)


@pytest.mark.parametrize(
    "close", [close_during_a_statement, close_before_a_statement, close_before_the_commit]
)
async def test_a_connection_that_the_server_closes_is_an_outage(
    database: Database, close: Callable[[Database, Connection], Awaitable[None]]
) -> None:
    with pytest.raises(DatabaseUnavailableError):
        async with database.transaction() as connection:
            await close(database, connection)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_an_outage_is_logged_with_the_text_of_the_error(
    database: Database, log_lines: LogLines
) -> None:
    with pytest.raises(DatabaseUnavailableError):
        async with database.connection() as connection:
            await connection.execute("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)")
    [line] = [line for line in log_lines() if line["message"] == "database unavailable"]
    assert line["level"] == "WARNING"
    assert line["error"].startswith("QueryCanceledError: ")


@pytest.fixture
async def end_read_only(postgres: Postgres, database_url: str) -> EndReadOnly:
    """Make new sessions read-only, as on a standby. Returns a function that ends it for later ones.

    After it, the open sessions are like those to a server that is no longer the primary.
    """
    name = database_url.rpartition("/")[2]

    async def reset() -> None:
        await execute_sql(
            postgres.url, f"ALTER DATABASE {name} RESET default_transaction_read_only"
        )

    await execute_sql(postgres.url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    return reset


async def test_after_a_write_to_a_read_only_server_all_connections_are_replaced(
    end_read_only: EndReadOnly, database: Database
) -> None:
    async with database.connection() as first, database.connection() as second:
        pids = {first.get_server_pid(), second.get_server_pid()}
    await end_read_only()
    with pytest.raises(DatabaseUnavailableError):
        async with database.connection() as connection:
            await connection.execute("DELETE FROM idempotency_keys")
    async with database.connection() as first, database.connection() as second:
        assert pids.isdisjoint({first.get_server_pid(), second.get_server_pid()})
        for connection in (first, second):
            await connection.execute("DELETE FROM idempotency_keys")


async def test_a_read_only_server_is_unready_until_another_one_is_reached(
    end_read_only: EndReadOnly, make_settings: MakeSettings, serve: Serve
) -> None:
    async with serve(create_app(make_settings())) as client:
        response = await client.get("/ready")
        assert response.status_code == 503
        assert response.json()["checks"]["database"] == "read-only"
        await end_read_only()
        await wait_for_ready_status(client, 200)


async def test_of_several_hosts_the_one_that_can_write_is_used(
    end_read_only: EndReadOnly,
    own_postgres: Postgres,
    database_url: str,
    make_settings: MakeSettings,
) -> None:
    """The hosts have different data here, so they are two primaries of which one is read-only."""
    password = urlsplit(database_url).password or ""
    name = database_url.rpartition("/")[2]
    await execute_sql(own_postgres.url, f"CREATE DATABASE {name}")
    statement = f"ALTER ROLE postgres PASSWORD '{unquote(password)}'"
    await execute_sql(own_postgres.url, statement)
    hosts = f"127.0.0.1:{urlsplit(database_url).port},127.0.0.1:{own_postgres.port}"
    url = f"postgresql://postgres:{password}@{hosts}/{name}?target_session_attrs=read-write"
    settings = make_settings(database_url=url)
    async with open_database(settings, 1) as database, database.connection() as connection:
        assert await connection.fetchval("SHOW port") == str(own_postgres.port)


async def change_type(database_url: str) -> None:
    await execute_sql(database_url, "ALTER TABLE a ALTER COLUMN b TYPE varchar(200)")


async def test_a_transaction_is_repeated_once_after_a_migration_has_changed_a_type(
    make_settings: MakeSettings, database_url: str
) -> None:
    """The insertion is not the first statement, so PostgreSQL cannot repeat it alone."""
    await execute_sql(database_url, "CREATE TABLE a (b text)")
    calls = 0

    @repeat_after_schema_change
    async def insert(database: Database) -> None:
        nonlocal calls
        calls += 1
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO a VALUES ('before')")
            await connection.fetchrow("INSERT INTO a VALUES ($1) RETURNING b", "after")

    async with open_database(make_settings(), pool_size=1) as database:
        await insert(database)
        await change_type(database_url)
        await insert(database)
        assert calls == 3
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM a") == 4


async def test_a_statement_without_a_transaction_is_not_repeated_after_it_was_executed(
    make_settings: MakeSettings, database_url: str
) -> None:
    """Its result cannot be decoded, because its composite type has changed."""
    await execute_sql(database_url, "CREATE TYPE c AS (d text)")
    await execute_sql(database_url, "CREATE TABLE a (b c)")

    @repeat_after_schema_change
    async def insert(database: Database) -> None:
        async with database.connection() as connection:
            await connection.fetchrow("INSERT INTO a VALUES (ROW('text')) RETURNING b")

    async with open_database(make_settings(), pool_size=1) as database:
        await insert(database)
        await execute_sql(database_url, "ALTER TYPE c ADD ATTRIBUTE e text")
        with pytest.raises(DatabaseUnavailableError) as error_info:
            await insert(database)
        assert isinstance(error_info.value.__cause__, asyncpg.OutdatedSchemaCacheError)
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM a") == 2


async def test_without_the_decorator_a_changed_type_is_one_503(
    make_settings: MakeSettings, database_url: str
) -> None:
    await execute_sql(database_url, "CREATE TABLE a (b text)")

    async def insert(database: Database) -> None:
        async with database.transaction() as connection:
            await connection.fetchrow("INSERT INTO a VALUES ($1) RETURNING b", "text")

    async with open_database(make_settings(), pool_size=1) as database:
        await insert(database)
        await change_type(database_url)
        with pytest.raises(SchemaChangedError):
            await insert(database)
        await insert(database)
