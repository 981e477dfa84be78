"""The pool on a real PostgreSQL: it reuses, replaces and cleans up its connections."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from fastapi_k8s import connection_pool
from fastapi_k8s.connection_pool import ConnectionPool
from fastapi_k8s.database import Database, DatabaseUnavailableError, open_database
from tests.conftest import MakeSettings
from tests.integration.conftest import execute_sql
from tools.dev.servers import Postgres

COUNT_SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


@pytest.fixture
async def database(make_settings: MakeSettings) -> AsyncIterator[Database]:
    """A pool of one connection."""
    async with open_database(make_settings(), pool_size=1) as database:
        yield database


async def get_pid(database: Database) -> int:
    """The process id of the server behind the connection of the pool."""
    async with database.connection() as connection:
        return connection.get_server_pid()


async def count_sleeping(database: Database) -> int:
    async with database.connection() as connection:
        return int(await connection.fetchval(COUNT_SLEEPING))


async def test_a_connection_is_used_again(database: Database) -> None:
    assert await get_pid(database) == await get_pid(database)


async def test_a_connection_that_was_idle_for_too_long_is_replaced(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = await get_pid(database)
    monkeypatch.setattr(connection_pool, "MAX_IDLE_SECONDS", 0)
    assert await get_pid(database) != pid


async def test_a_connection_that_nobody_needs_after_a_peak_is_closed(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections that are used most recently stay open."""
    now = 1000.0
    monkeypatch.setattr(connection_pool, "monotonic", lambda: now)
    async with open_database(make_settings(), pool_size=2) as database:
        async with database.connection() as used, database.connection() as unused:
            assert used is not unused
        for _ in range(4):
            now += 0.3 * connection_pool.MAX_IDLE_SECONDS
            async with database.connection() as connection:
                assert connection is used
        async with asyncio.timeout(10):
            while not unused.is_closed():
                await asyncio.sleep(0.01)
        async with database.connection() as connection:
            assert connection is used


async def test_a_connection_that_was_closed_while_idle_is_replaced(
    database: Database, postgres: Postgres
) -> None:
    async with database.connection() as connection:
        pid = connection.get_server_pid()
    await execute_sql(postgres.url, f"SELECT pg_terminate_backend({pid}, 10000)")
    async with asyncio.timeout(10):
        while not connection.is_closed():
            await asyncio.sleep(0.01)
    assert await get_pid(database) != pid


async def test_a_connection_in_a_transaction_of_the_caller_is_closed(database: Database) -> None:
    """Otherwise the next request would run in that transaction."""
    async with database.connection() as connection:
        await connection.execute("BEGIN")
    assert connection.is_closed()
    async with database.connection() as connection:
        assert not connection.is_in_transaction()


async def test_a_connection_is_kept_after_an_error_and_its_transaction_is_rolled_back(
    database: Database,
) -> None:
    pid = await get_pid(database)

    async def fail_after_a_statement() -> None:
        async with database.transaction() as connection:
            await connection.execute("CREATE TABLE t (a integer)")
            raise ValueError("of the caller")

    with pytest.raises(ValueError, match="of the caller"):
        await fail_after_a_statement()
    with pytest.raises(asyncpg.UndefinedTableError):
        async with database.connection() as connection:
            await connection.execute("SELECT FROM t")
    assert await get_pid(database) == pid


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_cancelled_request_ends_its_statement_and_the_connection_is_kept(
    database: Database, make_settings: MakeSettings, in_transaction: bool
) -> None:
    pid = await get_pid(database)

    async def sleep() -> None:
        use = database.transaction if in_transaction else database.connection
        async with use() as connection:
            await connection.execute("SELECT pg_sleep(60)")

    task = asyncio.create_task(sleep())
    async with open_database(make_settings(), pool_size=1) as other, asyncio.timeout(10):
        while await count_sleeping(other) == 0:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # A pool of one connection: this waits until the statement has ended.
        assert await get_pid(database) == pid
        assert await count_sleeping(other) == 0


async def test_a_request_that_waits_for_a_connection_can_be_cancelled(database: Database) -> None:
    async with database.connection():
        task = asyncio.create_task(get_pid(database))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await get_pid(database)


async def test_a_server_that_hangs_delays_no_response_and_the_pool_recovers(
    own_postgres: Postgres, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection of the cancelled statement is closed, because the server does not respond."""
    monkeypatch.setattr(connection_pool, "CLEANUP_SECONDS", 0.2)
    settings = make_settings(database_url=own_postgres.url, database_statement_timeout=60)
    async with open_database(settings, pool_size=1) as database:
        pid = await get_pid(database)
        own_postgres.freeze()
        try:
            async with asyncio.timeout(10):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1), database.connection() as connection:
                        await connection.execute("SELECT 1")
                while not connection.is_closed():
                    await asyncio.sleep(0.01)
        finally:
            own_postgres.thaw()
        assert await get_pid(database) != pid


async def test_connections_that_were_opened_before_an_expiry_are_replaced_once(
    make_settings: MakeSettings,
) -> None:
    async with open_database(make_settings(), pool_size=2) as database:
        pool: ConnectionPool = database.pool
        first = await pool.acquire()
        second = await pool.acquire()
        pool.release(first)
        pool.expire(second)
        third = await pool.acquire()
        assert third is not first
        pool.expire(second)
        pool.release(second)
        pool.release(third)
        assert await pool.acquire() is third
        assert second.is_closed()
        pool.release(third)


async def test_a_commit_continues_if_the_request_is_cancelled(
    own_postgres: Postgres, make_settings: MakeSettings
) -> None:
    """After it `after_commit` is called, which would otherwise invalidate the cache too early."""
    committed = asyncio.Event()

    async def set_committed() -> None:
        committed.set()

    block_is_left = asyncio.Event()
    settings = make_settings(database_url=own_postgres.url, database_statement_timeout=60)
    await execute_sql(own_postgres.url, "CREATE TABLE t (a integer)")
    async with open_database(settings, pool_size=1) as database:

        async def write() -> None:
            async with database.transaction(after_commit=set_committed) as connection:
                await connection.execute("INSERT INTO t VALUES (1)")
                own_postgres.freeze()
                asyncio.get_running_loop().call_soon(block_is_left.set)

        try:
            task = asyncio.create_task(write())
            await asyncio.wait_for(block_is_left.wait(), 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not committed.is_set()
        finally:
            own_postgres.thaw()
        await asyncio.wait_for(committed.wait(), 10)
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM t") == 1


async def test_after_commit_is_called_if_the_commit_fails_and_its_error_is_raised(
    database: Database,
) -> None:
    calls = []

    async def after_commit() -> None:
        calls.append("after_commit")

    async with database.connection() as connection:
        await connection.execute("CREATE TABLE t (a integer UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.transaction(after_commit=after_commit) as connection:
            await connection.execute("INSERT INTO t VALUES (1), (1)")
    assert calls == ["after_commit"]
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM t") == 0


async def test_closing_waits_for_a_commit_in_progress(make_settings: MakeSettings) -> None:
    settings = make_settings()
    block_is_left = asyncio.Event()
    async with open_database(settings, pool_size=1) as database:
        async with database.connection() as connection:
            await connection.execute("CREATE TABLE t (a integer)")

        async def write() -> None:
            async with database.transaction() as connection:
                await connection.execute("INSERT INTO t VALUES (1)")
                asyncio.get_running_loop().call_later(0, block_is_left.set)

        writing = asyncio.create_task(write())
        await block_is_left.wait()
        writing.cancel()
    async with (
        open_database(settings, pool_size=1) as database,
        database.connection() as connection,
    ):
        assert await connection.fetchval("SELECT count(*) FROM t") == 1


async def test_no_connection_is_503_at_the_end_of_the_pool_timeout(
    make_settings: MakeSettings,
) -> None:
    # The timeout also limits how long the first connection may take to open.
    settings = make_settings(database_pool_timeout=2)
    async with open_database(settings, pool_size=1) as database, database.connection():
        with pytest.raises(DatabaseUnavailableError):
            await get_pid(database)


async def test_a_task_that_the_end_of_the_event_loop_cancels_is_not_an_error(
    database: Database,
) -> None:
    task = database.pool.start(asyncio.sleep(60))
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
