"""Fixtures for the production image in containers, with PostgreSQL and Redis containers."""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import uuid4

import httpx
import pytest
import yaml
from python_on_whales import Container, DockerClient
from python_on_whales.exceptions import DockerException

from fastapi_k8s import NAME
from tests.docker_session import LABELS, SESSION_NAME
from tools.checkout import PROJECT, run_command
from tools.dev.servers import wait_until

SERVICES = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
POSTGRES_IMAGE = SERVICES["db"]["image"]
REDIS_IMAGE = SERVICES["redis"]["image"]
POSTGRES_PASSWORD = uuid4().hex
HARDENING_OPTIONS: dict[str, Any] = {
    "read_only": True,
    "tmpfs": ["/tmp"],
    "cap_drop": ["ALL"],
    "security_options": ["no-new-privileges"],
}
"""How Compose and Kubernetes restrict a container, as options of `docker run`."""


@dataclass
class Application:
    """A running container of the image, and a client for its published port."""

    container: Container
    client: httpx.Client

    def run_python(self, program: str) -> str:
        """Run a program in the container and return its output. The image has no shell."""
        return str(self.container.execute(["python", "-c", program]))


RunApplication: TypeAlias = Callable[..., AbstractContextManager[Application]]


@pytest.fixture(scope="session", autouse=True)
def accept_sigint() -> Iterator[None]:
    """Let the programs that tests start react to SIGINT, as with Ctrl-C in a terminal.

    A script starts its background jobs with SIGINT ignored, and their child processes inherit that.
    If the tests run in such a job, the shell of `make docker-run` could miss its SIGINT.
    """
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def python_base_image() -> str:
    """Return the base image of the Dockerfile. It is local, so a test image can use it too."""
    dockerfile = (PROJECT / "Dockerfile").read_text()
    [image] = re.findall(r"^FROM (\S+) AS base$", dockerfile, re.MULTILINE)
    return str(image)


@pytest.fixture(scope="session")
def network(docker: DockerClient) -> str:
    """The name of the network for the containers of this pytest process."""
    docker.network.create(SESSION_NAME, labels=LABELS)
    return SESSION_NAME


@contextmanager
def run_postgres(
    docker: DockerClient, network: str, name: str, **options: Any
) -> Iterator[Container]:
    """Run PostgreSQL 18 with this host name in the network, and more options of `docker run`."""
    container = docker.run(
        POSTGRES_IMAGE,
        detach=True,
        envs={"POSTGRES_PASSWORD": POSTGRES_PASSWORD, "POSTGRES_USER": "app"},
        labels=LABELS,
        networks=[network],
        network_aliases=[name],
        **options,
    )
    try:
        is_ready = ["pg_isready", "--host=127.0.0.1", "--username=app"]
        wait_until(lambda: command_succeeds(container, is_ready), 60, "PostgreSQL's start")
        yield container
    finally:
        container.remove(force=True, volumes=True)


@contextmanager
def run_redis(docker: DockerClient, network: str, name: str, **options: Any) -> Iterator[Container]:
    """Run Redis 8 with this host name in the network, and more options of `docker run`."""
    container = docker.run(
        REDIS_IMAGE,
        detach=True,
        labels=LABELS,
        networks=[network],
        network_aliases=[name],
        **options,
    )
    try:
        ping = ["redis-cli", "ping"]
        wait_until(lambda: command_succeeds(container, ping), 60, "Redis' start")
        yield container
    finally:
        container.remove(force=True, volumes=True)


def command_succeeds(container: Container, command: list[str]) -> bool:
    """Return whether a command in the container exits with code 0."""
    try:
        container.execute(command)
    except DockerException:
        return False
    return True


def application_environment(postgres: str = "postgres", redis: str = "redis") -> dict[str, str]:
    """Return the environment of an application that uses the servers with these host names."""
    return {
        "DATABASE_URL": f"postgresql://app:{POSTGRES_PASSWORD}@{postgres}:5432/app",
        "REDIS_URL": f"redis://{redis}:6379",
        "REDIS_TIMEOUT": "1",
    }


@pytest.fixture(scope="session")
def postgres(docker: DockerClient, network: str, image: str) -> Iterator[Container]:
    """A migrated PostgreSQL. Tests that use it must not stop it."""
    with run_postgres(docker, network, "postgres") as container:
        migrate(docker, image, network)
        yield container


@pytest.fixture(scope="session")
def redis(docker: DockerClient, network: str) -> Iterator[Container]:
    """A Redis. Tests that use it must not stop it."""
    with run_redis(docker, network, "redis") as container:
        yield container


def migrate(docker: DockerClient, image: str, network: str, postgres: str = "postgres") -> None:
    """Run the image's `migrate` command on the PostgreSQL with this host name."""
    docker.run(
        image,
        [NAME, "migrate"],
        remove=True,
        labels=LABELS,
        envs=application_environment(postgres),
        networks=[network],
        **HARDENING_OPTIONS,
    )


@pytest.fixture(scope="session")
def run_application(docker: DockerClient, image: str, network: str) -> RunApplication:
    """A context manager that runs the image, with the hardening options, once it is healthy."""

    @contextmanager
    def run(
        environment: dict[str, str] | None = None, tag: str = image, **options: Any
    ) -> Iterator[Application]:
        container = docker.run(
            tag,
            detach=True,
            envs={**application_environment(), **(environment or {})},
            labels=LABELS,
            networks=[network],
            publish=[("127.0.0.1:", 8000)],
            **{**HARDENING_OPTIONS, **options},
        )
        try:
            address = run_command(["docker", "port", container.id, "8000"]).strip()
            with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
                wait_until(lambda: returns_200(client), 30, "the application's first response")
                yield Application(container, client)
        finally:
            container.remove(force=True, volumes=True)

    return run


def returns_200(client: httpx.Client, path: str = "/health") -> bool:
    """Return whether a GET request gets a response with status 200."""
    try:
        return client.get(path).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest.fixture
def application(
    run_application: RunApplication, postgres: Container, redis: Container
) -> Iterator[Application]:
    """The running application, with the shared PostgreSQL and Redis."""
    with run_application() as application:
        yield application
