"""Real servers: one PostgreSQL and one Valkey per pytest process, and a database per test."""

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

TEMPLATE_DATABASE = "template_migrated"
POSTGRES_SETTINGS = ("fsync=off", "full_page_writes=off", "max_connections=200")
"""Without fsync PostgreSQL is faster, and loses data only if the machine itself crashes."""


def replace_database(url: str, name: str) -> str:
    """The same URL with the name of another database."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


async def execute_sql(url: str, statement: str) -> None:
    """Execute a statement outside of a transaction, which some statements require."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def fetch_rows(url: str, statement: str) -> list[Any]:
    """The rows of a query, as tuples."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


async def wait_for_ready_status(client: httpx.AsyncClient, status: int) -> httpx.Response:
    """Poll /ready until its status is `status`, and return that response."""
    async with asyncio.timeout(20):
        while True:
            response = await client.get("/ready")
            if response.status_code == status:
                return response
            await asyncio.sleep(0.05)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The PostgreSQL server that tests share. They must not stop it."""
    server = Postgres(tmp_path_factory.mktemp("postgresql"), *POSTGRES_SETTINGS)
    with running_servers(server):
        yield server


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """The Valkey server that tests share. They must not stop it."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    with running_servers(server):
        yield server


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A PostgreSQL server that the test may stop."""
    server = Postgres(tmp_path / "postgresql", *POSTGRES_SETTINGS)
    with running_servers(server):
        yield server


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey server that the test may stop."""
    server = Valkey(tmp_path / "valkey")
    with running_servers(server):
        yield server


@pytest.fixture(scope="session")
async def template_database(postgres: Postgres) -> str:
    """The name of a migrated database. To copy it is faster than to migrate."""
    await execute_sql(postgres.url, f"CREATE DATABASE {TEMPLATE_DATABASE}")
    url = replace_database(postgres.url, TEMPLATE_DATABASE)
    await migrate(Settings(_env_file=None, database_url=url), wait_seconds=30)
    return TEMPLATE_DATABASE


@pytest.fixture
async def empty_database(postgres: Postgres) -> AsyncIterator[str]:
    """The URL of a new database without a schema."""
    name = f"test_{uuid4().hex}"
    await execute_sql(postgres.url, f"CREATE DATABASE {name}")
    yield replace_database(postgres.url, name)
    await execute_sql(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(postgres: Postgres, template_database: str) -> AsyncIterator[str]:
    """The URL of a new migrated database."""
    name = f"test_{uuid4().hex}"
    await execute_sql(postgres.url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield replace_database(postgres.url, name)
    await execute_sql(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def make_settings(database_url: str, valkey: Valkey) -> MakeSettings:
    """A function that makes settings for the shared servers.

    Its keyword arguments are settings that replace these. The timeouts are long, because the
    machine may be busy.
    """
    defaults = {
        "database_url": database_url,
        "redis_url": valkey.url,
        "redis_timeout": 5,
        "database_pool_timeout": 30,
        "database_statement_timeout": 30,
    }

    def make(**settings: Any) -> Settings:
        return Settings(_env_file=None, **{**defaults, **settings})

    return make
