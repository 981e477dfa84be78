"""Real servers: one PostgreSQL and one Valkey per pytest process, a database per test."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx
import pytest

from fastapi_k8s.migrations.migrate import migrate
from fastapi_k8s.settings import Settings
from tests.conftest import MakeSettings
from tools.dev.servers import Postgres, Valkey, running_servers

FAST = ("fsync=off", "full_page_writes=off", "max_connections=200")
"""What a test's PostgreSQL does without: its data need not outlive the machine."""


def with_database(url: str, name: str) -> str:
    """`url` with another database."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


async def admin(url: str, statement: str) -> None:
    """Run a statement that cannot run in a transaction."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def query(url: str, statement: str) -> list[Any]:
    """The rows of a statement, as tuples."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


async def until(client: httpx.AsyncClient, status: int) -> httpx.Response:
    """Poll /ready until it answers with `status`."""
    async with asyncio.timeout(20):
        while (answer := await client.get("/ready")).status_code != status:
            await asyncio.sleep(0.05)
    return answer


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """PostgreSQL, for tests that leave it running."""
    server = Postgres(tmp_path_factory.mktemp("postgresql"), *FAST)
    with running_servers(server):
        yield server


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """Valkey, for tests that leave it running."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    with running_servers(server):
        yield server


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """PostgreSQL, for a test that stops or breaks it."""
    server = Postgres(tmp_path / "postgresql", *FAST)
    with running_servers(server):
        yield server


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """Valkey, for a test that stops or breaks it."""
    server = Valkey(tmp_path / "valkey")
    with running_servers(server):
        yield server


@pytest.fixture(scope="session")
async def template(postgres: Postgres) -> str:
    """The name of a migrated database, to be cloned."""
    await admin(postgres.url, "CREATE DATABASE template_migrated")
    url = with_database(postgres.url, "template_migrated")
    await migrate(Settings(_env_file=None, database_url=url), wait_seconds=0)
    return "template_migrated"


@pytest.fixture
async def empty_database(postgres: Postgres) -> AsyncIterator[str]:
    """The URL of a database without a schema."""
    name = f"test_{uuid4().hex}"
    await admin(postgres.url, f"CREATE DATABASE {name}")
    yield with_database(postgres.url, name)
    await admin(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(postgres: Postgres, template: str) -> AsyncIterator[str]:
    """The URL of a migrated database."""
    name = f"test_{uuid4().hex}"
    await admin(postgres.url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield with_database(postgres.url, name)
    await admin(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def make_settings(database_url: str, valkey: Valkey) -> MakeSettings:
    """Settings of the real servers, patient with a busy machine; keyword arguments replace."""
    patient = {
        "database_url": database_url,
        "redis_url": valkey.url,
        "redis_timeout": 5,
        "database_pool_timeout": 30,
        "database_statement_timeout": 30,
    }

    def make(**given: Any) -> Settings:
        return Settings(_env_file=None, **{**patient, **given})

    return make
