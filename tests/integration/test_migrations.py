"""Migrations on a real PostgreSQL."""

import asyncio
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
from tests.integration.conftest import admin, query
from tools.dev.servers import Postgres, free_port

COMMAND = Path(sys.executable).parent / NAME

COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns
WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1, 2
"""


async def revision(url: str) -> str:
    [(found,)] = await query(url, "SELECT version_num FROM alembic_version")
    return str(found)


async def run_alembic(url: str, action: str, target: str) -> None:
    """Let Alembic upgrade or downgrade to `target`."""

    def run(connection: Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", "fastapi_k8s:migrations")
        getattr(command, action)(config, target)

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url), poolclass=NullPool
    )
    async with engine.begin() as connection:
        await connection.run_sync(run)


async def test_every_revision_goes_up_down_and_up_again(empty_database: str) -> None:
    revisions = [f"{number:04}" for number in range(1, int(newest_revision()) + 1)]
    for each in revisions:
        before = await query(empty_database, COLUMNS)
        await run_alembic(empty_database, "upgrade", each)
        after = await query(empty_database, COLUMNS)
        assert after != before
        await run_alembic(empty_database, "downgrade", "-1")
        assert await query(empty_database, COLUMNS) == before
        await run_alembic(empty_database, "upgrade", each)
        assert await query(empty_database, COLUMNS) == after


async def test_twenty_at_once_on_an_empty_database_make_the_schema_once(
    empty_database: str,
) -> None:
    environment = {"DATABASE_URL": empty_database}
    processes = [
        await asyncio.create_subprocess_exec(
            COMMAND,
            "migrate",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(20)
    ]
    outputs = [(await process.communicate())[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 20, "".join(outputs)
    newest = newest_revision()
    made = [output for output in outputs if f"schema upgraded from 0000 to {newest}" in output]
    assert len(made) == 1
    assert await revision(empty_database) == newest


async def test_a_database_that_is_ahead_is_left_alone(
    database_url: str, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    await admin(database_url, "UPDATE alembic_version SET version_num = '9999'")
    before = await query(database_url, COLUMNS)
    with caplog.at_level("INFO"):
        await migrate(make_settings(), wait_seconds=0)
    assert "schema revision 9999, needed" in caplog.text
    assert await revision(database_url) == "9999"
    assert await query(database_url, COLUMNS) == before


async def test_a_failing_migration_leaves_nothing_half_done(
    empty_database: str, make_settings: MakeSettings
) -> None:
    """The last revision fails because its table is there already: the first is undone too."""
    settings = make_settings(database_url=empty_database)
    await migrate(settings, wait_seconds=0)
    last = (await query(empty_database, COLUMNS))[-1][0]
    await run_alembic(empty_database, "downgrade", "base")
    await admin(empty_database, f"CREATE TABLE {last} ()")
    with pytest.raises(Exception, match="already exists"):
        await migrate(settings, wait_seconds=0)
    assert await query(empty_database, COLUMNS) == []
    assert await query(empty_database, "SELECT version_num FROM alembic_version") == []


async def test_a_database_that_is_still_starting_is_waited_for(
    own_postgres: Postgres, make_settings: MakeSettings
) -> None:
    own_postgres.stop()
    waiting = asyncio.create_task(
        migrate(make_settings(database_url=own_postgres.url), wait_seconds=30)
    )
    await asyncio.sleep(0.7)
    assert not waiting.done()
    await asyncio.to_thread(own_postgres.start)
    await waiting
    assert await revision(own_postgres.url) == newest_revision()


def run_migrate(url: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [COMMAND, "migrate", "--wait", "0.1"],
        env={"DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_database_that_does_not_come_ends_it_with_one_line() -> None:
    done = run_migrate(f"postgresql://user:hidden@127.0.0.1:{free_port()}/name")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "cannot use the database" in done.stderr
    assert "hidden" not in done.stdout + done.stderr


async def test_a_wrong_password_is_not_waited_on(
    database_url: str, make_settings: MakeSettings
) -> None:
    wrong = database_url.replace("postgres:", "postgres:x")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await migrate(make_settings(database_url=wrong), wait_seconds=3600)


async def test_a_refused_password_ends_it_with_one_line_without_the_password(
    database_url: str,
) -> None:
    done = run_migrate(database_url.replace("postgres:", "postgres:hidden"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "hidden" not in done.stdout + done.stderr
