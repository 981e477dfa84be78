"""The image with PostgreSQL and Redis behind a proxy, in containers on a separate network."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
from python_on_whales import Container, DockerClient
from redis.asyncio import Redis

from tests.container.conftest import (
    HARDENING_OPTIONS,
    POSTGRES_PASSWORD,
    command_succeeds,
    migrate,
    returns_200,
    run_postgres,
    run_redis,
)
from tests.docker_session import LABELS, SESSION_NAME
from tools.checkout import run_command
from tools.dev.servers import wait_until

HOST = "127.0.0.1"
CONTROL_PORT = 9000
DIRECT_PORTS = {5432: 15432, 6379: 16379}
"""The ports of the proxy that always forward, by those that can fail."""

REDIS_PASSWORD = uuid4().hex
REDIS_TIMEOUT_SECONDS = 1
"""Longer than the default: a busy machine would sometimes exceed it, and reads would skip Redis."""

MAX_CONNECTIONS = 40
"""The limit of PostgreSQL, which a fault reaches.

The other setting of PostgreSQL, fsync=off, makes the times independent of the disk.
"""

SMALL_DISK = "/small-disk"
PROXY_PROGRAM = (Path(__file__).parent / "tcp_proxy.py").read_text()


@dataclass(frozen=True)
class Server:
    """PostgreSQL or Redis behind the proxy.

    The application connects to `port` of the proxy. `direct_port` and `control_port` are ports of
    this machine: one leads to the server and never fails, the other controls the proxy.
    """

    container: Container
    readiness_command: tuple[str, ...]
    port: int
    direct_port: int
    control_port: int

    async def set_proxy_mode(self, mode: str) -> None:
        """Change what happens to the connections of the application (see tcp_proxy.py)."""
        reader, writer = await asyncio.open_connection(HOST, self.control_port)
        writer.write(f"{self.port} {mode}\n".encode())
        assert await reader.read() == b"\n"
        writer.close()

    async def run(self, *command: str) -> None:
        """Run a command in the container."""
        await asyncio.to_thread(self.container.execute, list(command))

    async def wait_until_ready(self) -> None:
        """Wait until the server accepts clients."""
        command = list(self.readiness_command)
        await asyncio.to_thread(
            wait_until, lambda: command_succeeds(self.container, command), 60, "the server's start"
        )


@dataclass(frozen=True)
class Stack:
    """The application in its container, which is never restarted, and its servers."""

    url: str
    application: Container
    postgres: Server
    redis: Server

    async def connect_to_postgres(self) -> "asyncpg.Connection[asyncpg.Record]":
        """An administrator's connection that does not fail."""
        return await asyncpg.connect(
            host=HOST,
            port=self.postgres.direct_port,
            user="app",
            password=POSTGRES_PASSWORD,
            database="app",
        )

    async def execute_sql(self, *statements: str) -> None:
        """Execute each statement on its own, outside of a transaction."""
        connection = await self.connect_to_postgres()
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    async def fetch_rows(self, query: str) -> list[Any]:
        """The rows of a query."""
        connection = await self.connect_to_postgres()
        rows = await connection.fetch(query)
        await connection.close()
        return rows

    def connect_to_redis(self) -> Redis:
        """An administrator's client with a single connection that does not fail."""
        return Redis(
            host=HOST,
            port=self.redis.direct_port,
            password=REDIS_PASSWORD,
            single_connection_client=True,
        )


def published_port(container: Container, port: int) -> int:
    """Return the port of this machine that leads to a port of a container."""
    address = run_command(["docker", "port", container.id, str(port)])
    return int(address.rpartition(":")[2])


@contextmanager
def run_stack(docker: DockerClient, image: str) -> Iterator[Stack]:
    """Run all containers. The application has its default settings, except REDIS_TIMEOUT."""
    network = f"{SESSION_NAME}-{uuid4().hex[:8]}"
    docker.network.create(network, labels=LABELS)
    with ExitStack() as resources:
        resources.callback(docker.network.remove, network)
        postgres = resources.enter_context(
            run_postgres(
                docker,
                network,
                "postgres",
                command=["postgres", "-c", f"max_connections={MAX_CONNECTIONS}", "-c", "fsync=off"],
                tmpfs=[f"{SMALL_DISK}:size=64m"],
            )
        )
        redis = resources.enter_context(
            run_redis(
                docker,
                network,
                "redis",
                command=["redis-server", "--requirepass", REDIS_PASSWORD, "--save", ""],
                tmpfs=["/data:size=8m"],
            )
        )
        migrate(docker, image, network)

        def run_image(name: str, command: list[str], ports: list[int], **options: Any) -> Container:
            container = docker.run(
                image,
                command,
                detach=True,
                labels=LABELS,
                networks=[network],
                network_aliases=[name],
                publish=[(f"{HOST}:", port) for port in ports],
                **HARDENING_OPTIONS,
                **options,
            )
            resources.callback(container.remove, force=True, volumes=True)
            return container

        routes = []
        for name, port in (("postgres", 5432), ("redis", 6379)):
            routes += [f"{port}={name}:{port}", f"{DIRECT_PORTS[port]}={name}:{port}"]
        proxy = run_image(
            "proxy",
            ["python", "-c", PROXY_PROGRAM, str(CONTROL_PORT), *routes],
            [CONTROL_PORT, *DIRECT_PORTS.values()],
        )
        environment = {
            "DATABASE_URL": f"postgresql://app:{POSTGRES_PASSWORD}@proxy:5432/app",
            "REDIS_URL": f"redis://:{REDIS_PASSWORD}@proxy:6379",
            "REDIS_TIMEOUT": f"{REDIS_TIMEOUT_SECONDS}",
        }
        application = run_image("application", [], [8000], envs=environment)
        url = f"http://{HOST}:{published_port(application, 8000)}"
        with httpx.Client(base_url=url) as client:
            wait_until(lambda: returns_200(client, "/ready"), 60, "the application to be ready")
        yield Stack(
            url,
            application,
            make_server(postgres, ("pg_isready", f"--host={HOST}", "--username=app"), proxy, 5432),
            make_server(redis, ("redis-cli", "ping"), proxy, 6379),
        )


def make_server(
    container: Container, readiness_command: tuple[str, ...], proxy: Container, port: int
) -> Server:
    """Return a server, with the ports of this machine that lead to the proxy."""
    direct_port = published_port(proxy, DIRECT_PORTS[port])
    control_port = published_port(proxy, CONTROL_PORT)
    return Server(container, readiness_command, port, direct_port, control_port)
