"""Migrations on a real PostgreSQL: reversible, safe to run concurrently, all or nothing."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from fastapi_k8s import NAME, migrations
from fastapi_k8s.dependencies import DatabaseDep
from fastapi_k8s.main import create_app
from fastapi_k8s.migrations import migrate as migrate_module
from fastapi_k8s.migrations import newest_revision
from fastapi_k8s.migrations.migrate import (
    CONNECT_TIMEOUT_SECONDS,
    LOCK,
    MigrationError,
    migrate,
)
from tests.conftest import MakeSettings, Serve
from tests.integration.conftest import execute_sql, fetch_rows
from tools.dev.servers import Postgres

COMMAND = Path(sys.executable).parent / NAME
CONCURRENT_PROCESSES = 20
MIGRATE_CONCURRENTLY = f"""
import multiprocessing
import sys
from fastapi_k8s.cli import main

sys.argv = ["{NAME}", "migrate"]
context = multiprocessing.get_context("fork")
processes = [context.Process(target=main) for _ in range({CONCURRENT_PROCESSES})]
for process in processes:
    process.start()
for process in processes:
    process.join()
print(*[process.exitcode for process in processes], file=sys.stderr)
"""
FIND_COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns
WHERE table_schema = 'public' AND table_name <> 'alembic_version'
ORDER BY table_name, column_name
"""
FIND_REVISION = "SELECT version_num FROM alembic_version"
FIND_INDEX = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'keys_body'::regclass"
CREATE_INDEX_CONCURRENTLY = """
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS keys_body")
        op.execute("CREATE INDEX CONCURRENTLY keys_body ON idempotency_keys (body)")
"""
REVISION_FILE = """
from alembic import op

revision = "{revision}"
down_revision = "{down_revision}"


def upgrade():
    {upgrade}
"""

AddRevisions = Callable[..., list[str]]


@pytest.fixture
def add_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddRevisions:
    """A function that adds revisions with these bodies of `upgrade`. It returns their numbers."""
    original_config = migrate_module.alembic_config

    def config_with_folder(connection: Connection) -> Config:
        config = original_config(connection)
        folders = [str(files(migrations) / "versions"), str(tmp_path)]
        config.set_main_option("path_separator", "os")
        config.set_main_option("version_locations", os.pathsep.join(folders))
        return config

    def add(*bodies: str) -> list[str]:
        revisions = [newest_revision()]
        for body in bodies:
            revision = f"{int(revisions[-1]) + 1:04}"
            text = REVISION_FILE.format(
                revision=revision, down_revision=revisions[-1], upgrade=body.strip()
            )
            (tmp_path / f"{revision}_test.py").write_text(text)
            revisions.append(revision)
        monkeypatch.setattr(migrate_module, "alembic_config", config_with_folder)
        monkeypatch.setattr(migrate_module, "newest_revision", lambda: revisions[-1])
        return revisions[1:]

    return add


async def wait_until_waiting(url: str, wait_event: str) -> None:
    """Wait until a session of the database waits for a lock of this type."""
    query = f"""
        SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event = '{wait_event}'
    """
    async with asyncio.timeout(20):
        while not await fetch_rows(url, query):
            await asyncio.sleep(0.02)


async def read_revision(url: str) -> str:
    [(revision,)] = await fetch_rows(url, FIND_REVISION)
    return str(revision)


async def run_alembic(url: str, action: str, target: str) -> None:
    """Run Alembic's command `upgrade` or `downgrade` to the revision `target`."""

    def run(connection: Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", "fastapi_k8s:migrations")
        getattr(command, action)(config, target)

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url), poolclass=NullPool
    )
    async with engine.begin() as connection:
        await connection.run_sync(run)


async def test_every_migration_can_be_downgraded_and_upgraded_again(empty_database: str) -> None:
    numbers = range(1, int(newest_revision()) + 1)
    for revision in [f"{number:04}" for number in numbers]:
        before = await fetch_rows(empty_database, FIND_COLUMNS)
        await run_alembic(empty_database, "upgrade", revision)
        after = await fetch_rows(empty_database, FIND_COLUMNS)
        assert after != before
        await run_alembic(empty_database, "downgrade", "-1")
        assert await fetch_rows(empty_database, FIND_COLUMNS) == before
        await run_alembic(empty_database, "upgrade", revision)
        assert await fetch_rows(empty_database, FIND_COLUMNS) == after


async def test_one_of_twenty_concurrent_processes_creates_the_schema(empty_database: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", MIGRATE_CONCURRENTLY],
        env=os.environ | {"DATABASE_URL": empty_database},
        capture_output=True,
        text=True,
        check=False,
    )
    output = process.stdout + process.stderr
    assert process.stderr.split() == ["0"] * CONCURRENT_PROCESSES, output
    newest = newest_revision()
    assert output.count(f"schema upgraded from 0000 to {newest}") == 1
    assert output.count(f"schema revision {newest}, needed {newest}") == CONCURRENT_PROCESSES - 1
    assert await read_revision(empty_database) == newest


async def test_a_schema_that_is_newer_than_the_release_is_not_changed(
    database_url: str, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    await execute_sql(database_url, "UPDATE alembic_version SET version_num = '9999'")
    before = await fetch_rows(database_url, FIND_COLUMNS)
    with caplog.at_level("INFO"):
        await migrate(make_settings(), wait_seconds=30)
    assert "schema revision 9999, needed" in caplog.text
    assert await read_revision(database_url) == "9999"
    assert await fetch_rows(database_url, FIND_COLUMNS) == before


async def test_a_migration_that_fails_is_rolled_back_and_those_before_it_stay(
    empty_database: str, make_settings: MakeSettings, add_revisions: AddRevisions
) -> None:
    revision, next_revision = add_revisions(
        'op.execute("CREATE TABLE a ()")',
        'op.execute("CREATE TABLE b ()")\n    op.execute("CREATE TABLE a ()")',
    )
    settings = make_settings(database_url=empty_database)
    with pytest.raises(ProgrammingError, match="already exists"):
        await migrate(settings, wait_seconds=30)
    assert await read_revision(empty_database) == revision
    await execute_sql(empty_database, "DROP TABLE a")
    await migrate(settings, wait_seconds=30)
    assert await read_revision(empty_database) == next_revision


async def test_concurrent_processes_create_an_index_concurrently(
    database_url: str,
    make_settings: MakeSettings,
    add_revisions: AddRevisions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """CREATE INDEX CONCURRENTLY waits for older statements, also for those that wait for a lock.

    The transaction that is open at first makes it wait, until all other processes wait as well.
    """
    [revision] = add_revisions(CREATE_INDEX_CONCURRENTLY)
    older_transaction = await asyncpg.connect(database_url)
    await older_transaction.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    caplog.set_level("INFO")
    migrations = [asyncio.create_task(migrate(make_settings(), wait_seconds=60)) for _ in range(10)]
    await wait_until_waiting(database_url, "virtualxid")
    async with asyncio.timeout(20):
        while caplog.text.count("waiting: another process is migrating") < 2 * len(migrations):
            await asyncio.sleep(0.02)
    assert not any(migration.done() for migration in migrations)
    await older_transaction.close()
    await asyncio.gather(*migrations)
    assert await read_revision(database_url) == revision
    assert await fetch_rows(database_url, FIND_INDEX) == [(True,)]


async def test_an_invalid_index_is_replaced_by_the_next_attempt(
    database_url: str, make_settings: MakeSettings, add_revisions: AddRevisions
) -> None:
    [revision] = add_revisions(CREATE_INDEX_CONCURRENTLY)
    older_transaction = await asyncpg.connect(database_url)
    await older_transaction.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    migration = asyncio.create_task(migrate(make_settings(), wait_seconds=60))
    await wait_until_waiting(database_url, "virtualxid")
    migration.cancel()
    await asyncio.gather(migration, return_exceptions=True)
    await older_transaction.close()
    assert await fetch_rows(database_url, FIND_INDEX) == [(False,)]
    await migrate(make_settings(), wait_seconds=60)
    assert await read_revision(database_url) == revision
    assert await fetch_rows(database_url, FIND_INDEX) == [(True,)]


async def test_while_a_migration_waits_for_a_table_no_request_fails(
    database_url: str,
    make_settings: MakeSettings,
    serve: Serve,
    add_revisions: AddRevisions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    [revision] = add_revisions('op.execute("ALTER TABLE idempotency_keys ADD COLUMN x integer")')
    app = create_app(make_settings())

    @app.get("/keys")
    async def count_keys(database: DatabaseDep) -> int:
        async with database.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM idempotency_keys"))

    blocker = await asyncpg.connect(database_url)
    await blocker.execute("BEGIN; SELECT count(*) FROM idempotency_keys")
    async with serve(app) as client:
        with caplog.at_level("INFO"):
            migration = asyncio.create_task(migrate(make_settings(), wait_seconds=60))
            while caplog.text.count("another session holds a lock that this statement needs") < 3:
                responses = await asyncio.gather(*[client.get("/keys") for _ in range(20)])
                assert {response.status_code for response in responses} == {200}
        assert not migration.done()
        await blocker.close()
        await migration
    assert await read_revision(database_url) == revision


async def test_a_migration_that_waits_too_long_for_a_table_fails_and_names_the_statement(
    database_url: str, make_settings: MakeSettings, add_revisions: AddRevisions
) -> None:
    statement = "ALTER TABLE idempotency_keys ADD COLUMN x integer"
    add_revisions(f'op.execute("{statement}")')
    before = await read_revision(database_url)
    blocker = await asyncpg.connect(database_url)
    await blocker.execute("BEGIN; SELECT count(*) FROM idempotency_keys")
    with pytest.raises(MigrationError, match=f"lock that this statement needs: {statement}"):
        await migrate(make_settings(), wait_seconds=0)
    await blocker.close()
    assert await read_revision(database_url) == before


async def test_the_wait_for_another_migration_has_a_limit(
    database_url: str, make_settings: MakeSettings
) -> None:
    other = await asyncpg.connect(database_url)
    await other.execute(LOCK)
    with pytest.raises(MigrationError, match="another process is migrating"):
        await migrate(make_settings(), wait_seconds=0)
    await other.close()
    await migrate(make_settings(), wait_seconds=30)


async def test_the_wait_for_a_server_that_stops_responding_after_connecting_has_a_limit(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate_module, "LOCK", "SELECT pg_sleep(3600)")
    with pytest.raises(MigrationError, match="cannot use the database: TimeoutError"):
        await migrate(make_settings(), wait_seconds=0)


async def test_the_wait_for_a_server_that_does_not_respond_has_the_same_limit(
    own_postgres: Postgres, make_settings: MakeSettings
) -> None:
    """The first attempt to connect would take ten seconds."""
    own_postgres.freeze()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            with pytest.raises(MigrationError, match="cannot use the database: TimeoutError"):
                await migrate(make_settings(database_url=own_postgres.url), wait_seconds=0)
    finally:
        own_postgres.thaw()


async def test_migrate_waits_for_a_database_that_is_starting(
    own_postgres: Postgres, make_settings: MakeSettings
) -> None:
    own_postgres.stop()
    settings = make_settings(database_url=own_postgres.url)
    migration = asyncio.create_task(migrate(settings, wait_seconds=30))
    await asyncio.sleep(0.7)
    assert not migration.done()
    await asyncio.to_thread(own_postgres.start)
    await migration
    assert await read_revision(own_postgres.url) == newest_revision()


async def test_migrate_does_not_wait_if_the_password_is_wrong(
    database_url: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=database_url.replace("postgres:", "postgres:x"))
    with pytest.raises(MigrationError, match="InvalidPasswordError"):
        await migrate(settings, wait_seconds=3600)


async def test_a_wrong_password_is_reported_in_one_line_without_the_password(
    database_url: str,
) -> None:
    process = subprocess.run(
        [COMMAND, "migrate"],
        env={"DATABASE_URL": database_url.replace("postgres:", "postgres:hidden")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.count("\n") == 1
    assert "cannot use the database" in process.stderr
    assert "hidden" not in process.stdout + process.stderr
