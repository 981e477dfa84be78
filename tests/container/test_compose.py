"""The Compose stack: production's shape alone, and with the override the development stack."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from python_on_whales import DockerClient

from fastapi_k8s import NAME
from tests.checkout import copy_checkout, inherited, output
from tests.container.conftest import PASSWORD, answers
from tools.dev.servers import free_port, wait_until


@dataclass
class Stack:
    """A Compose project in a checkout of its own."""

    folder: Path
    environment: dict[str, str]
    client: httpx.Client

    def compose(self, *command: str) -> str:
        """What `docker compose` prints."""
        return output(["docker", "compose", *command], cwd=self.folder, env=self.environment)

    def make(self, *arguments: str, stdin: str = "") -> str:
        """What `make` prints."""
        command = ["make", *arguments]
        return output(command, cwd=self.folder, env=self.environment, input=stdin)

    def sql(self, statement: str) -> str:
        """What psql prints, on the stack's database."""
        return self.compose("exec", "-T", "db", "psql", "--username=app", "-c", statement)

    def inspect(self, service: str, form: str) -> str:
        """What `docker inspect --format` prints of a service's container."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        return output(["docker", "inspect", "--format", form, container]).strip()


@contextmanager
def stack(folder: Path, **environment: str) -> Iterator[Stack]:
    """A project with a name and ports of its own, which is removed with its data and images."""
    project, port = f"{NAME}-test-{uuid4().hex[:12]}", str(free_port())
    own = {
        "COMPOSE_PROJECT_NAME": project,
        "API_PORT": port,
        "DB_PORT": str(free_port()),
        **environment,
    }
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        stack = Stack(folder, inherited() | own, client)
        try:
            yield stack
        finally:
            everything = ("--volumes", "--remove-orphans", "--rmi", "local")
            stack.compose("down", *everything, "--timeout", "20")
            leftover = ["docker", "image", "rm", "--force", f"{project}-development"]
            subprocess.run(leftover, check=False, capture_output=True)


@pytest.fixture
def production(tmp_path: Path, image: str) -> Iterator[Stack]:
    """The base file alone, on the image under test."""
    copy_checkout(tmp_path)
    services = ", ".join(f"{name}: {{image: {image}}}" for name in ("api", "migrate"))
    (tmp_path / "image.yml").write_text(f"services: {{{services}}}")
    files = "docker-compose.yml:image.yml"
    with stack(tmp_path, COMPOSE_FILE=files, POSTGRES_PASSWORD=PASSWORD) as given:
        yield given


@pytest.fixture(scope="module")
def development(docker: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The development stack as `make up` starts it in a clean checkout without `.env`."""
    with stack(copy_checkout(tmp_path_factory.mktemp("development"))) as given:
        given.make("up")
        yield given


def test_the_base_file_alone_is_ready_and_keeps_its_data(production: Stack) -> None:
    production.compose("up", "--no-build", "--wait")
    production.sql("CREATE TABLE kept ()")
    ready = production.client.get("/ready").json()
    assert ready["checks"] == {"database": "ok", "cache": "ok"}
    production.compose("down", "--timeout", "20")
    production.compose("up", "--no-build", "--wait")
    assert "kept" in production.sql("\\dt")


def test_the_base_file_alone_locks_every_container_down(production: Stack) -> None:
    production.compose("up", "--no-build", "--wait")
    for service in ("api", "migrate", "db", "redis"):
        form = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}"
        told = production.inspect(service, form)
        assert told == "true [ALL] [no-new-privileges:true]", service
        assert int(production.inspect(service, "{{.HostConfig.Memory}}")) > 0
        assert int(production.inspect(service, "{{.HostConfig.PidsLimit}}")) > 0
        assert production.inspect(service, "{{.HostConfig.LogConfig.Config}}")
    ports = "{{json .NetworkSettings.Ports}}"
    assert "HostPort" not in production.inspect("db", ports) + production.inspect("redis", ports)
    assert '"HostIp":"127.0.0.1"' in production.inspect("api", ports)
    connect = "import socket; socket.create_connection(('1.1.1.1', 53), 2)"
    with pytest.raises(subprocess.CalledProcessError):  # its network leads nowhere
        production.compose("run", "--rm", "--no-deps", "-T", "migrate", "python", "-c", connect)
    asked = ("exec", "-T", "redis", "redis-cli", "config", "get", "maxmemory-policy")
    assert production.compose(*asked).split() == ["maxmemory-policy", "allkeys-lru"]


def test_the_service_and_the_database_each_refuse_an_empty_password(production: Stack) -> None:
    production.environment["POSTGRES_PASSWORD"] = ""
    for service, message in (
        ("migrate", "DATABASE_URL: Value error, has no password"),
        ("db", "POSTGRES_PASSWORD"),
    ):
        done = subprocess.run(
            ["docker", "compose", "run", "--rm", "--no-deps", "-T", service],
            cwd=production.folder,
            env=production.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        assert message in done.stderr


def test_up_ends_ready_migrated_and_published_on_loopback_alone(development: Stack) -> None:
    assert development.client.get("/ready").json()["status"] == "ready"
    assert development.client.post("/items", json={"name": "Lamp"}).status_code == 201  # example
    port = development.environment["DB_PORT"]
    assert development.compose("port", "db", "5432").strip() == f"127.0.0.1:{port}"
    assert development.compose("port", "api", "5678").startswith("127.0.0.1:")


def test_the_debugger_listens(development: Stack) -> None:
    host, port = development.compose("port", "api", "5678").strip().split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.settimeout(10)
        assert connection.recv(64).startswith(b"Content-Length:")  # the Debug Adapter Protocol's


def test_an_edit_shows_in_the_next_answers(development: Stack) -> None:
    health = development.folder / "src/fastapi_k8s/health.py"
    health.write_text(health.read_text().replace('{"status": "ok"}', '{"status": "edited"}'))

    def edited() -> bool:
        try:
            return "edited" in development.client.get("/health").text
        except httpx.TransportError:
            return False

    wait_until(edited, 15, "the edit's effect")


def test_the_source_is_read_only_the_environment_the_image_s_and_the_user_unprivileged(
    development: Stack,
) -> None:
    program = (
        "import os, sys, fastapi_k8s as package; "
        "print(os.getuid(), os.access(package.__path__[0], os.W_OK), sys.prefix)"
    )
    told = development.compose("exec", "-T", "api", "python", "-c", program)
    assert told.split() == ["10001", "False", "/app/.venv"]


def test_the_development_image_is_smaller_than_450_mb(development: Stack) -> None:
    name = f"{development.environment['COMPOSE_PROJECT_NAME']}-development"
    assert int(output(["docker", "image", "inspect", "--format", "{{.Size}}", name])) < 450e6


def test_make_reaches_the_database_and_the_migrations(development: Stack) -> None:
    asked = development.make("compose-psql", stdin="SELECT version_num FROM alembic_version;\n")
    newest = max((development.folder / "src/fastapi_k8s/migrations/versions").glob("0*.py"))
    assert newest.name[:4] in asked
    assert '"message"' in development.make("compose-migrate")


def test_a_second_checkout_runs_beside_the_first(
    development: Stack, docker: DockerClient, tmp_path: Path
) -> None:
    with stack(copy_checkout(tmp_path)) as second:
        second.compose("up", "--wait")
        second.sql("CREATE TABLE second ()")
        assert "second" not in development.sql("\\dt")
        assert answers(second.client)
        assert answers(development.client)
