"""Migrations on a real PostgreSQL: reversible, safe to run concurrently, all or nothing."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from fastapi_k8s import NAME
from fastapi_k8s.migrations import newest_revision
from fastapi_k8s.migrations.migrate import migrate
from tests.conftest import MakeSettings
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
        await migrate(make_settings(), wait_seconds=0)
    assert "schema revision 9999, needed" in caplog.text
    assert await read_revision(database_url) == "9999"
    assert await fetch_rows(database_url, FIND_COLUMNS) == before


async def test_if_a_migration_fails_all_are_rolled_back(
    empty_database: str, make_settings: MakeSettings
) -> None:
    """The last migration fails, because its table exists. The others are rolled back too."""
    settings = make_settings(database_url=empty_database)
    await migrate(settings, wait_seconds=0)
    columns = await fetch_rows(empty_database, FIND_COLUMNS)
    last_table = columns[-1][0]
    await run_alembic(empty_database, "downgrade", "base")
    await execute_sql(empty_database, f"CREATE TABLE {last_table} ()")
    with pytest.raises(Exception, match="already exists"):
        await migrate(settings, wait_seconds=0)
    assert await fetch_rows(empty_database, FIND_COLUMNS) == []
    assert await fetch_rows(empty_database, FIND_REVISION) == []


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
    with pytest.raises(asyncpg.InvalidPasswordError):
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
