"""The application under Gunicorn, on its own PostgreSQL and Valkey, which a test may kill.

PostgreSQL has its default settings: a commit is on the disk before it is acknowledged.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi_k8s.migrations.migrate import migrate
from fastapi_k8s.settings import Settings
from tests.integration.test_server import Gunicorn, process_environment, running_gunicorn
from tools.dev.servers import Postgres, Valkey, running_servers


@dataclass(frozen=True)
class DurableService:
    """The processes of a service. `url` is the base URL of its API."""

    postgres: Postgres
    valkey: Valkey
    gunicorn: Gunicorn

    @property
    def url(self) -> str:
        return self.gunicorn.url


@asynccontextmanager
async def running_service(
    folder: Path, *gunicorn_arguments: str, **variables: str
) -> AsyncIterator[DurableService]:
    """A service whose servers keep their files in `folder`. `variables` are its settings."""
    postgres = Postgres(folder / "postgresql")
    valkey = Valkey(folder / "valkey")
    with running_servers(postgres, valkey):
        await migrate(Settings(_env_file=None, database_url=postgres.url), wait_seconds=30)
        environment = process_environment(
            DATABASE_URL=postgres.url, REDIS_URL=valkey.url, **variables
        )
        with running_gunicorn(environment, *gunicorn_arguments) as gunicorn:
            yield DurableService(postgres, valkey, gunicorn)
