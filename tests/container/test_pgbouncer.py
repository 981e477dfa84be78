"""The image behind PgBouncer in transaction mode: many clients share two connections."""

import csv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest
from python_on_whales import Container, DockerClient

from fastapi_k8s import NAME
from fastapi_k8s.migrations import newest_revision
from tests.container.conftest import (
    HARDENED,
    LABELS,
    PASSWORD,
    RUN,
    Serve,
    base_image,
    migrate,
    postgres_container,
    settings,
    succeeds,
)
from tools.dev.servers import wait_until

BEHIND = "postgres-behind-pgbouncer"
MIGRATIONS, CLIENTS, SERVERS = 20, 10, 2

DOCKERFILE = f"""
FROM {base_image()}
RUN apt-get update && \
    apt-get install -y --no-install-recommends pgbouncer && \
    rm -rf /var/lib/apt/lists/*
COPY --chown=10001 --chmod=0400 pgbouncer.ini users.txt /etc/pgbouncer/
USER 10001:10001
CMD ["pgbouncer", "/etc/pgbouncer/pgbouncer.ini"]
"""

CONFIGURATION = f"""
[databases]
app = host={BEHIND}

[pgbouncer]
listen_addr = *
listen_port = 5432
unix_socket_dir =
auth_type = scram-sha-256
auth_file = /etc/pgbouncer/users.txt
admin_users = app
pool_mode = transaction
default_pool_size = {SERVERS}
max_prepared_statements = 100
"""

# The image has no shell. The exit codes are the last line.
MIGRATE_AT_ONCE = f"""
from subprocess import STDOUT, Popen
running = [Popen(["{NAME}", "migrate"], stderr=STDOUT) for _ in range({MIGRATIONS})]
print(*[each.wait() for each in running])
"""


@dataclass(frozen=True)
class PgBouncer:
    """PgBouncer, in the network as `name`, and the PostgreSQL behind it, which has psql."""

    name: str
    postgres: Container

    def query(self, database: str, statement: str) -> list[dict[str, str]]:
        """Ask PgBouncer: itself if `database` is `pgbouncer`."""
        url = f"postgresql://app:{PASSWORD}@{self.name}:5432/{database}"
        told = str(self.postgres.execute(["psql", url, "--csv", "-qc", statement]))
        return list(csv.DictReader(told.splitlines()))

    def pool(self) -> dict[str, str]:
        """The one pool: its mode, its clients, its servers."""
        pools = self.query("pgbouncer", "SHOW POOLS")
        return next(each for each in pools if each["database"] == "app")

    def connections(self) -> int:
        """How many connections come over the network, as PostgreSQL counts them."""
        count = "SELECT count(*) FROM pg_stat_activity WHERE client_addr IS NOT NULL"
        return int(str(self.postgres.execute(["psql", "-U", "app", "-Atc", count])))

    @contextmanager
    def held_until(self, clients: int) -> Iterator[None]:
        """Let the statements of what the block starts wait, until so many clients do."""
        self.query("pgbouncer", "PAUSE app")
        try:
            yield
            wait_until(lambda: self.pool()["cl_waiting"] == str(clients), 60, "the clients")
        finally:
            self.query("pgbouncer", "RESUME app")


@pytest.fixture(scope="session")
def pgbouncer_image(docker: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian's PgBouncer, on the service's base image."""
    context = tmp_path_factory.mktemp("pgbouncer")
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "pgbouncer.ini").write_text(CONFIGURATION)
    (context / "users.txt").write_text(f'"app" "{PASSWORD}"\n')
    tag = f"{RUN}-pgbouncer"
    docker.build(context, labels=LABELS, tags=tag, progress=False)
    return tag


@pytest.fixture
def pgbouncer(docker: DockerClient, network: str, pgbouncer_image: str) -> Iterator[PgBouncer]:
    """PgBouncer before an empty database."""
    name = "pgbouncer"
    with postgres_container(docker, network, BEHIND) as postgres:
        container = docker.run(
            pgbouncer_image,
            detach=True,
            labels=LABELS,
            networks=[network],
            network_aliases=[name],
            **HARDENED,
        )
        try:
            ask = ["pg_isready", f"--host={name}"]
            wait_until(lambda: succeeds(postgres, ask), 30, "PgBouncer's start")
            yield PgBouncer(name, postgres)
        finally:
            container.remove(force=True, volumes=True)


def test_twenty_migrations_at_once_through_two_connections_make_the_schema_once(
    docker: DockerClient, image: str, network: str, pgbouncer: PgBouncer
) -> None:
    def migrate_at_once() -> str:
        told = docker.run(
            image,
            ["python", "-c", MIGRATE_AT_ONCE],
            remove=True,
            labels=LABELS,
            envs=settings(postgres=pgbouncer.name),
            networks=[network],
            **HARDENED,
        )
        return str(told)

    # Once it has reached PostgreSQL, PgBouncer lets clients in while it is paused.
    pgbouncer.query("app", "SELECT")
    with ThreadPoolExecutor(1) as thread:
        with pgbouncer.held_until(MIGRATIONS):
            running = thread.submit(migrate_at_once)
        *logs, codes = running.result().splitlines()
    assert codes.split() == ["0"] * MIGRATIONS, logs
    newest = newest_revision()
    assert "".join(logs).count(f"schema brought from 0000 to {newest}") == 1
    assert "".join(logs).count(f"schema brought from {newest} to {newest}") == MIGRATIONS - 1
    found = pgbouncer.query("app", "SELECT version_num FROM alembic_version")
    assert found == [{"version_num": newest}]
    assert pgbouncer.connections() <= SERVERS


def test_every_request_of_ten_connections_is_served_through_two(  # example
    docker: DockerClient, image: str, network: str, serve: Serve, pgbouncer: PgBouncer
) -> None:
    """In session mode the first two of the service's connections would keep both for themselves."""
    migrate(docker, image, network, postgres=pgbouncer.name)
    patient = {
        "DATABASE_POOL_SIZE": str(CLIENTS),
        "DATABASE_ACQUIRE_TIMEOUT": "15",
        "DATABASE_STATEMENT_TIMEOUT": "15",
        "REDIS_URL": "",  # or reads would not come to PostgreSQL
    }
    with (
        serve({**settings(postgres=pgbouncer.name), **patient}) as service,
        ThreadPoolExecutor(2 * CLIENTS) as threads,
    ):
        assert service.client.get("/ready").status_code == httpx.codes.OK
        assert pgbouncer.pool()["pool_mode"] == "transaction"
        with pgbouncer.held_until(CLIENTS):
            users = [threads.submit(use, service.client) for _ in range(2 * CLIENTS)]
        for each in users:
            each.result()
        assert service.client.get("/ready").status_code == httpx.codes.OK
        assert pgbouncer.pool()["cl_active"] == str(CLIENTS + 1)  # which is readiness' own
        assert pgbouncer.connections() == SERVERS


def use(client: httpx.Client) -> None:  # example
    """Five times all that can happen to an item, from its creation to its end."""
    for _ in range(5):
        live(client)


def live(client: httpx.Client) -> None:  # example
    """All that can happen to an item, from its creation to its end."""
    content, key = {"name": "Lamp"}, {"Idempotency-Key": uuid4().hex}
    created = client.post("/items", json=content, headers=key)
    assert created.status_code == httpx.codes.CREATED
    assert client.post("/items", json=content, headers=key).content == created.content
    path = created.headers["Location"]
    read = client.get(path)
    assert (read.status_code, read.content) == (httpx.codes.OK, created.content)
    version = {"If-Match": read.headers["ETag"]}
    updated = client.put(path, json={"name": "Desk lamp"}, headers=version)
    assert (updated.status_code, updated.json()["name"]) == (httpx.codes.OK, "Desk lamp")
    stale = client.put(path, json=content, headers=version)  # which is rolled back
    assert stale.status_code == httpx.codes.PRECONDITION_FAILED
    page = client.get("/items", params={"limit": 100})
    assert (page.status_code, updated.json() in page.json()["items"]) == (httpx.codes.OK, True)
    assert client.delete(path).status_code == httpx.codes.NO_CONTENT
    assert client.get(path).status_code == httpx.codes.NOT_FOUND
