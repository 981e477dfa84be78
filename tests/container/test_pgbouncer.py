"""The image behind PgBouncer in transaction mode: many clients share two connections."""

import csv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from python_on_whales import Container, DockerClient

from fastapi_k8s import NAME
from fastapi_k8s.migrations import newest_revision
from tests.container.conftest import (
    HARDENING_OPTIONS,
    POSTGRES_PASSWORD,
    RunApplication,
    application_environment,
    command_succeeds,
    migrate,
    python_base_image,
    run_postgres,
)
from tests.docker_session import LABELS, SESSION_NAME
from tools.dev.servers import wait_until

POSTGRES_NAME = "postgres-behind-pgbouncer"
PGBOUNCER_NAME = "pgbouncer"
MIGRATIONS = 20
POOL_SIZE = 10
"""Connections of the application's pool to PgBouncer."""
SERVER_CONNECTIONS = 2
"""Connections of PgBouncer to PostgreSQL."""

DOCKERFILE = f"""
FROM {python_base_image()}
RUN apt-get update && \
    apt-get install -y --no-install-recommends pgbouncer && \
    rm -rf /var/lib/apt/lists/*
COPY --chown=10001 --chmod=0400 pgbouncer.ini users.txt /etc/pgbouncer/
USER 10001:10001
CMD ["pgbouncer", "/etc/pgbouncer/pgbouncer.ini"]
"""

CONFIGURATION = f"""
[databases]
app = host={POSTGRES_NAME}

[pgbouncer]
listen_addr = *
listen_port = 5432
unix_socket_dir =
auth_type = scram-sha-256
auth_file = /etc/pgbouncer/users.txt
admin_users = app
pool_mode = transaction
default_pool_size = {SERVER_CONNECTIONS}
max_prepared_statements = 100
"""

# The processes are forked after the imports, which take most of the time of a migration. Twenty
# commands would need so long on a busy machine that they would not run at the same time.
MIGRATE_CONCURRENTLY = f"""
import multiprocessing
import sys
from fastapi_k8s.cli import main

sys.argv = ["{NAME}", "migrate"]
sys.stderr = sys.stdout
context = multiprocessing.get_context("fork")
processes = [context.Process(target=main) for _ in range({MIGRATIONS})]
for process in processes:
    process.start()
for process in processes:
    process.join()
print(*[process.exitcode for process in processes])
"""
"""A program that runs the `migrate` command in several processes and prints their exit codes."""

REVISION = f"{int(newest_revision()) + 1:04}"
REVISION_FILE = f"""
from alembic import op

revision = "{REVISION}"
down_revision = "{newest_revision()}"


def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY keys_body ON idempotency_keys (body)")
"""
"""A revision that is added to the image's, and cannot run in a transaction."""

PRINT_VERSIONS_FOLDER = """
import fastapi_k8s.migrations
print(fastapi_k8s.migrations.__path__[0] + "/versions")
"""


@dataclass(frozen=True)
class PgBouncer:
    """A running PgBouncer. Its statements are run by psql in the container of PostgreSQL."""

    postgres: Container

    def query(self, database: str, statement: str) -> list[dict[str, str]]:
        """Run a statement through PgBouncer, or in its console if `database` is `pgbouncer`."""
        url = f"postgresql://app:{POSTGRES_PASSWORD}@{PGBOUNCER_NAME}:5432/{database}"
        table = str(self.postgres.execute(["psql", url, "--csv", "-qc", statement]))
        return list(csv.DictReader(table.splitlines()))

    def show_pool(self) -> dict[str, str]:
        """Return PgBouncer's pool for the database, with its mode and its clients."""
        [pool] = [row for row in self.query("pgbouncer", "SHOW POOLS") if row["database"] == "app"]
        return pool

    def count_server_connections(self) -> int:
        """Return how many connections from the network PostgreSQL has."""
        count = "SELECT count(*) FROM pg_stat_activity WHERE client_addr IS NOT NULL"
        return int(str(self.postgres.execute(["psql", "-U", "app", "-Atc", count])))

    @contextmanager
    def pause_until_waiting(self, clients: int) -> Iterator[None]:
        """Delay the statements of clients that the block starts, until this many clients wait."""
        self.query("pgbouncer", "PAUSE app")
        try:
            yield
            wait_until(
                lambda: self.show_pool()["cl_waiting"] == str(clients), 60, f"{clients} clients"
            )
        finally:
            self.query("pgbouncer", "RESUME app")


@pytest.fixture(scope="session")
def pgbouncer_image(docker: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tag of an image with Debian's PgBouncer."""
    context = tmp_path_factory.mktemp("pgbouncer")
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "pgbouncer.ini").write_text(CONFIGURATION)
    (context / "users.txt").write_text(f'"app" "{POSTGRES_PASSWORD}"\n')
    tag = f"{SESSION_NAME}-pgbouncer"
    docker.build(context, labels=LABELS, tags=tag, progress=False)
    return tag


@pytest.fixture
def pgbouncer(docker: DockerClient, network: str, pgbouncer_image: str) -> Iterator[PgBouncer]:
    """PgBouncer in front of an empty database."""
    with run_postgres(docker, network, POSTGRES_NAME) as postgres:
        container = docker.run(
            pgbouncer_image,
            detach=True,
            labels=LABELS,
            networks=[network],
            network_aliases=[PGBOUNCER_NAME],
            **HARDENING_OPTIONS,
        )
        try:
            is_ready = ["pg_isready", f"--host={PGBOUNCER_NAME}"]
            wait_until(lambda: command_succeeds(postgres, is_ready), 30, "PgBouncer's start")
            yield PgBouncer(postgres)
        finally:
            container.remove(force=True, volumes=True)


def test_concurrent_migrations_through_pgbouncer_run_each_revision_once(
    docker: DockerClient, image: str, network: str, pgbouncer: PgBouncer, tmp_path: Path
) -> None:
    """Also a revision that creates an index concurrently."""
    file = tmp_path / f"{REVISION}_index.py"
    file.write_text(REVISION_FILE)
    file.chmod(0o644)
    command = ["python", "-c", PRINT_VERSIONS_FOLDER]
    folder = str(docker.run(image, command, remove=True, labels=LABELS)).strip()

    def migrate_concurrently() -> str:
        output = docker.run(
            image,
            ["python", "-c", MIGRATE_CONCURRENTLY],
            remove=True,
            labels=LABELS,
            envs=application_environment(postgres=PGBOUNCER_NAME),
            networks=[network],
            volumes=[(file, f"{folder}/{file.name}", "ro")],
            **HARDENING_OPTIONS,
        )
        return str(output)

    # While it is paused, PgBouncer accepts clients only if it has connected to PostgreSQL before.
    pgbouncer.query("app", "SELECT")
    with ThreadPoolExecutor(1) as thread:
        with pgbouncer.pause_until_waiting(MIGRATIONS):
            migrations = thread.submit(migrate_concurrently)
        *log_lines, exit_codes = migrations.result().splitlines()
    assert exit_codes.split() == ["0"] * MIGRATIONS, log_lines
    log = "".join(log_lines)
    assert log.count(f"schema upgraded from 0000 to {REVISION}") == 1
    assert log.count(f"schema revision {REVISION}, needed {REVISION}") == MIGRATIONS - 1
    rows = pgbouncer.query("app", "SELECT version_num FROM alembic_version")
    assert rows == [{"version_num": REVISION}]
    find_index = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'keys_body'::regclass"
    assert pgbouncer.query("app", find_index) == [{"indisvalid": "t"}]
    assert pgbouncer.count_server_connections() <= SERVER_CONNECTIONS


def test_the_connections_of_the_pool_share_two_server_connections(  # example
    docker: DockerClient,
    image: str,
    network: str,
    run_application: RunApplication,
    pgbouncer: PgBouncer,
) -> None:
    """In session mode, two connections of the pool would keep both server connections."""
    migrate(docker, image, network, postgres=PGBOUNCER_NAME)
    environment = {
        **application_environment(postgres=PGBOUNCER_NAME),
        "DATABASE_POOL_SIZE": str(POOL_SIZE),
        "DATABASE_POOL_TIMEOUT": "15",
        "DATABASE_STATEMENT_TIMEOUT": "15",
        "REDIS_URL": "",  # With a cache, reads would not reach PostgreSQL.
    }
    with (
        run_application(environment) as application,
        ThreadPoolExecutor(2 * POOL_SIZE) as threads,
    ):
        assert application.client.get("/ready").status_code == httpx.codes.OK
        assert pgbouncer.show_pool()["pool_mode"] == "transaction"
        with pgbouncer.pause_until_waiting(POOL_SIZE):
            users = [threads.submit(use_items, application.client) for _ in range(2 * POOL_SIZE)]
        for user in users:
            user.result()
        assert application.client.get("/ready").status_code == httpx.codes.OK
        readiness_connections = 1
        assert pgbouncer.show_pool()["cl_active"] == str(POOL_SIZE + readiness_connections)
        assert pgbouncer.count_server_connections() == SERVER_CONNECTIONS


def use_items(client: httpx.Client) -> None:  # example
    """Send every kind of request for items, five times."""
    for _ in range(5):
        use_item(client)


def use_item(client: httpx.Client) -> None:  # example
    """Create, read, replace, list and delete an item."""
    content = {"name": "Lamp"}
    key = {"Idempotency-Key": uuid4().hex}
    create_response = client.post("/items", json=content, headers=key)
    assert create_response.status_code == httpx.codes.CREATED
    retry_response = client.post("/items", json=content, headers=key)
    assert retry_response.content == create_response.content

    path = create_response.headers["Location"]
    read_response = client.get(path)
    assert read_response.status_code == httpx.codes.OK
    assert read_response.content == create_response.content

    if_match = {"If-Match": read_response.headers["ETag"]}
    replace_response = client.put(path, json={"name": "Desk lamp"}, headers=if_match)
    assert replace_response.status_code == httpx.codes.OK
    assert replace_response.json()["name"] == "Desk lamp"
    # The ETag is outdated now, so the transaction rolls back.
    conflict_response = client.put(path, json=content, headers=if_match)
    assert conflict_response.status_code == httpx.codes.PRECONDITION_FAILED

    page = client.get("/items", params={"limit": 100})
    assert page.status_code == httpx.codes.OK
    assert replace_response.json() in page.json()["items"]

    assert client.delete(path).status_code == httpx.codes.NO_CONTENT
    assert client.get(path).status_code == httpx.codes.NOT_FOUND
