"""The image as it ships, in containers: built once, run beside PostgreSQL and Redis containers.

Everything made carries a label of this pytest process, by which it is removed at the end.
"""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import httpx
import pytest
from python_on_whales import Container, DockerClient
from python_on_whales.exceptions import DockerException

from fastapi_k8s import NAME
from tests.checkout import PROJECT, copy_checkout, output
from tools.dev.servers import wait_until

POSTGRES, REDIS = "postgres:18-alpine", "redis:8-alpine"
PASSWORD = uuid4().hex
RUN = f"{NAME}-test-{uuid4().hex[:12]}"
LABELS = {f"{NAME}.test": RUN}
HARDENED: dict[str, Any] = {
    "read_only": True,
    "tmpfs": ["/tmp"],
    "cap_drop": ["ALL"],
    "security_options": ["no-new-privileges"],
}


@dataclass
class Service:
    """A container of the image, and a client for the port that it publishes."""

    container: Container
    client: httpx.Client

    def python(self, program: str) -> str:
        """What a program prints that runs in the container, whose image has no shell."""
        return str(self.container.execute(["python", "-c", program]))


Alone: TypeAlias = Callable[[], AbstractContextManager[None]]
Serve: TypeAlias = Callable[..., AbstractContextManager[Service]]


def missing() -> str:
    """What these tests need and this machine lacks, or an empty string."""
    if not shutil.which("docker"):
        return "Docker is not installed"
    for command in (["info"], ["buildx", "version"], ["compose", "version"]):
        done = subprocess.run(["docker", *command], capture_output=True, check=False)
        if done.returncode:
            return f"`docker {' '.join(command)}` fails: Docker, Buildx or Compose is not there"
    return ""


@pytest.fixture(scope="session")
def docker() -> Iterator[DockerClient]:
    """Docker. Without it tests are skipped, or fail where `CI=true` says that it must be there."""
    if reason := missing():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    yield DockerClient()
    sweep()


def sweep() -> None:
    """Remove what this process has made."""
    label = f"--filter=label={NAME}.test={RUN}"
    for listing, removal in (
        (["container", "ls", "--quiet", "--all", label], ["container", "rm", "--force"]),
        (["network", "ls", "--quiet", label], ["network", "rm"]),
        (["image", "ls", "--quiet", label], ["image", "rm", "--force"]),
        (["image", "ls", "--quiet", f"--filter=reference={RUN}*"], ["image", "rm", "--force"]),
    ):
        if made := output(["docker", *listing]).split():
            output(["docker", *removal, *dict.fromkeys(made)])


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git knows of this checkout, and nothing else of the folder."""
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """A context in which no other of the parallel processes builds, if it has asked for this too.

    Of two builds at once, the one takes part in what the other runs without its cache.
    """

    @contextmanager
    def waiting() -> Iterator[None]:
        with (tmp_path_factory.getbasetemp().parent / "build.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    return waiting


@pytest.fixture(scope="session")
def image(docker: DockerClient, checkout: Path, alone: Alone) -> str:
    """The production image. Parallel processes share its layers."""
    with alone():
        docker.build(
            checkout,
            build_args={
                "APP_VERSION": "1.2.3",
                "GIT_SHA": "0123abc",
                "CREATED": "2026-01-02T03:04:05Z",
                "SOURCE": "https://example.com/service",
            },
            labels=LABELS,
            tags=RUN,
            progress=False,
        )
    return RUN


def base_image() -> str:
    """The image that the Dockerfile begins with, which is there once the service's is built."""
    dockerfile = (PROJECT / "Dockerfile").read_text()
    [version] = re.findall(r"^ARG PYTHON_VERSION=(\S+)$", dockerfile, re.MULTILINE)
    return f"python:{version}-slim-trixie"


@pytest.fixture(scope="session")
def network(docker: DockerClient) -> str:
    """The name of a network, for the containers of this process."""
    docker.network.create(RUN, labels=LABELS)
    return RUN


@contextmanager
def postgres_container(docker: DockerClient, network: str, name: str) -> Iterator[Container]:
    """PostgreSQL 18, reachable in the network by `name`."""
    container = docker.run(
        POSTGRES,
        detach=True,
        envs={"POSTGRES_PASSWORD": PASSWORD, "POSTGRES_USER": "app"},
        labels=LABELS,
        networks=[network],
        network_aliases=[name],
    )
    try:
        ask = ["pg_isready", "--host=127.0.0.1", "--username=app"]
        wait_until(lambda: succeeds(container, ask), 60, "PostgreSQL's start")
        yield container
    finally:
        container.remove(force=True, volumes=True)


@contextmanager
def redis_container(docker: DockerClient, network: str, name: str) -> Iterator[Container]:
    """Redis 8, reachable in the network by `name`."""
    container = docker.run(
        REDIS, detach=True, labels=LABELS, networks=[network], network_aliases=[name]
    )
    try:
        wait_until(lambda: succeeds(container, ["redis-cli", "ping"]), 60, "Redis' start")
        yield container
    finally:
        container.remove(force=True, volumes=True)


def succeeds(container: Container, command: list[str]) -> bool:
    """Whether a command in the container ends with exit code 0."""
    try:
        container.execute(command)
    except DockerException:
        return False
    return True


def settings(postgres: str = "postgres", redis: str = "redis") -> dict[str, str]:
    """The environment of a service that uses the servers with these names."""
    return {
        "DATABASE_URL": f"postgresql://app:{PASSWORD}@{postgres}:5432/app",
        "REDIS_URL": f"redis://{redis}:6379",
        "REDIS_TIMEOUT": "1",
    }


@pytest.fixture(scope="session")
def postgres(docker: DockerClient, network: str, image: str) -> Iterator[Container]:
    """PostgreSQL with the schema of the image, for tests that leave it running."""
    with postgres_container(docker, network, "postgres") as container:
        migrate(docker, image, network)
        yield container


@pytest.fixture(scope="session")
def redis(docker: DockerClient, network: str) -> Iterator[Container]:
    """Redis, for tests that leave it running."""
    with redis_container(docker, network, "redis") as container:
        yield container


def migrate(docker: DockerClient, image: str, network: str, **servers: str) -> None:
    """Run the image's `migrate` to its end."""
    docker.run(
        image,
        [NAME, "migrate"],
        remove=True,
        labels=LABELS,
        envs=settings(**servers),
        networks=[network],
        **HARDENED,
    )


@pytest.fixture
def serve(docker: DockerClient, image: str, network: str) -> Serve:
    """Run the image, locked down as Compose and Kubernetes do, until it answers."""

    @contextmanager
    def serving(
        envs: dict[str, str] | None = None, tag: str = image, **options: Any
    ) -> Iterator[Service]:
        container = docker.run(
            tag,
            detach=True,
            envs={**settings(), **(envs or {})},
            labels=LABELS,
            networks=[network],
            publish=[("127.0.0.1:", 8000)],
            **{**HARDENED, **options},
        )
        try:
            address = output(["docker", "port", container.id, "8000"]).strip()
            with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
                wait_until(lambda: answers(client), 30, "the service's first answer")
                yield Service(container, client)
        finally:
            container.remove(force=True, volumes=True)

    return serving


def answers(client: httpx.Client, path: str = "/health") -> bool:
    """Whether the service answers 200."""
    try:
        return client.get(path).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest.fixture
def service(serve: Serve, postgres: Container, redis: Container) -> Iterator[Service]:
    """The service on the shared servers."""
    with serve() as service:
        yield service
