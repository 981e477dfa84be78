"""The production stack (the base file alone) and the development stack (with the override)."""

import json
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
from tests.container.conftest import POSTGRES_PASSWORD, returns_200
from tests.docker_session import copy_private_checkout
from tools.checkout import copy_checkout, get_docker_environment, run_command
from tools.dev.servers import free_port, wait_until


@dataclass
class Stack:
    """A Compose project in its own checkout, and a client for its API."""

    folder: Path
    environment: dict[str, str]
    client: httpx.Client

    def compose(self, *arguments: str) -> str:
        """Run `docker compose` and return its output."""
        return run_command(["docker", "compose", *arguments], cwd=self.folder, env=self.environment)

    def make(self, *arguments: str, stdin: str = "") -> str:
        """Run `make` and return its output."""
        command = ["make", *arguments]
        return run_command(command, cwd=self.folder, env=self.environment, input=stdin)

    def psql(self, statement: str) -> str:
        """Run a statement in the stack's database and return the output of psql."""
        return self.compose("exec", "-T", "db", "psql", "--username=app", "-c", statement)

    def inspect(self, service: str, template: str) -> str:
        """Return what `docker inspect --format` prints for the container of a service."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        return run_command(["docker", "inspect", "--format", template, container]).strip()


@contextmanager
def create_stack(folder: Path, **environment: str) -> Iterator[Stack]:
    """Create a project with its own name and ports. Remove it at the end, with data and images."""
    project = f"{NAME}-test-{uuid4().hex[:12]}"
    api_port = str(free_port())
    project_environment = {
        "COMPOSE_PROJECT_NAME": project,
        "API_PORT": api_port,
        "DB_PORT": str(free_port()),
        **environment,
    }
    with httpx.Client(base_url=f"http://127.0.0.1:{api_port}", timeout=30) as client:
        stack = Stack(folder, get_docker_environment() | project_environment, client)
        try:
            yield stack
        finally:
            remove_all = ("--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "20")
            stack.compose("down", *remove_all)
            # `--rmi local` removes no image that the Compose files name.
            image = f"{project}-development"
            remove_image = ["docker", "image", "rm", "--force", image]
            subprocess.run(remove_image, check=False, capture_output=True)


@contextmanager
def create_production_stack(folder: Path, image: str, password: str) -> Iterator[Stack]:
    """Create the production stack with the image under test, without starting it."""
    copy_checkout(folder)
    services = ", ".join(f"{name}: {{image: {image}}}" for name in ("api", "migrate"))
    (folder / "image.yml").write_text(f"services: {{{services}}}")
    files = "docker-compose.yml:image.yml"
    with create_stack(folder, COMPOSE_FILE=files, POSTGRES_PASSWORD=password) as stack:
        yield stack


@pytest.fixture(scope="module")
def production(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The running production stack."""
    folder = tmp_path_factory.mktemp("production")
    with create_production_stack(folder, image, POSTGRES_PASSWORD) as stack:
        stack.compose("up", "--no-build", "--wait")
        yield stack


@pytest.fixture(scope="module")
def development(docker: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The development stack as `make up` starts it in a new checkout, which has no `.env`.

    Only the owner may read the checkout, as after `git clone` with umask 077.
    """
    checkout = copy_private_checkout(tmp_path_factory.mktemp("development"))
    with create_stack(checkout) as stack:
        stack.make("up")
        yield stack


def test_the_production_stack_is_ready_and_keeps_its_data_after_down(production: Stack) -> None:
    checks = production.client.get("/ready").json()["checks"]
    assert checks == {"database": "ok", "cache": "ok"}
    production.psql("CREATE TABLE kept ()")
    production.compose("down", "--timeout", "20")
    production.compose("up", "--no-build", "--wait")
    assert "kept" in production.psql("\\dt")


@pytest.mark.parametrize("service", ["api", "migrate", "db", "redis"])
def test_a_production_container_is_hardened_and_limited(production: Stack, service: str) -> None:
    assert production.inspect(service, "{{.HostConfig.ReadonlyRootfs}}") == "true"
    assert production.inspect(service, "{{.HostConfig.CapDrop}}") == "[ALL]"
    assert production.inspect(service, "{{.HostConfig.SecurityOpt}}") == "[no-new-privileges:true]"
    assert int(production.inspect(service, "{{.HostConfig.Memory}}")) > 0
    # An engine with one CPU, a rootless one and some kernels refuse a limit of CPUs.
    assert production.inspect(service, "{{.HostConfig.NanoCpus}}") == "0"
    assert int(production.inspect(service, "{{.HostConfig.PidsLimit}}")) > 0
    assert "max-size" in production.inspect(service, "{{.HostConfig.LogConfig.Config}}")


def test_production_publishes_only_the_api_and_only_on_loopback(production: Stack) -> None:
    ports = "{{json .NetworkSettings.Ports}}"
    assert "HostPort" not in production.inspect("db", ports)
    assert "HostPort" not in production.inspect("redis", ports)
    assert '"HostIp":"127.0.0.1"' in production.inspect("api", ports)


def test_the_private_network_has_no_connection_to_the_outside(production: Stack) -> None:
    connect = "import socket; socket.create_connection(('1.1.1.1', 53), 2)"
    with pytest.raises(subprocess.CalledProcessError):
        production.compose("run", "--rm", "--no-deps", "-T", "migrate", "python", "-c", connect)


def test_redis_evicts_the_least_recently_used_keys(production: Stack) -> None:
    get_policy = ("redis-cli", "config", "get", "maxmemory-policy")
    policy = production.compose("exec", "-T", "redis", *get_policy)
    assert policy.split() == ["maxmemory-policy", "allkeys-lru"]


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("migrate", "DATABASE_URL: has an empty password"),
        ("db", "POSTGRES_PASSWORD"),
    ],
)
def test_an_empty_password_is_refused_by(
    image: str, tmp_path: Path, service: str, message: str
) -> None:
    with create_production_stack(tmp_path, image, password="") as stack:
        process = subprocess.run(
            ["docker", "compose", "run", "--rm", "--no-deps", "-T", service],
            cwd=stack.folder,
            env=stack.environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert process.returncode != 0
    assert message in process.stderr


def test_after_make_up_the_stack_is_ready_migrated_and_published_only_on_loopback(
    development: Stack,
) -> None:
    assert development.client.get("/ready").json()["status"] == "ready"
    create_response = development.client.post("/items", json={"name": "Lamp"})  # example
    assert create_response.status_code == httpx.codes.CREATED  # example
    db_port = development.environment["DB_PORT"]
    assert development.compose("port", "db", "5432").strip() == f"127.0.0.1:{db_port}"
    assert development.compose("port", "api", "5678").startswith("127.0.0.1:")


def test_the_debugger_listens_on_its_published_port(development: Stack) -> None:
    host, port = development.compose("port", "api", "5678").strip().split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.settimeout(10)
        # A message of the Debug Adapter Protocol starts with this header.
        assert connection.recv(64).startswith(b"Content-Length:")


def test_a_source_edit_changes_the_responses(development: Stack) -> None:
    source = development.folder / "src/fastapi_k8s/health.py"
    source.write_text(source.read_text().replace('"ok"', '"edited"'))

    def is_edited() -> bool:
        try:
            return "edited" in development.client.get("/health").text
        except httpx.TransportError:
            return False

    wait_until(is_edited, 15, "the edited response")


def test_in_development_the_source_is_read_only(development: Stack) -> None:
    program = (
        "import os, sys, fastapi_k8s as package; "
        "print(os.access(package.__path__[0], os.W_OK), sys.prefix)"
    )
    output = development.compose("exec", "-T", "api", "python", "-c", program)
    source_is_writable, environment = output.split()
    assert source_is_writable == "False"
    assert environment == "/app/.venv"


@pytest.mark.parametrize("service", ["api", "migrate"])
def test_in_development_root_may_read_every_file_and_has_no_other_privilege(
    development: Stack, service: str
) -> None:
    assert development.inspect(service, "{{.Config.User}}") == "root"
    assert development.inspect(service, "{{.HostConfig.CapDrop}}") == "[ALL]"
    capabilities = development.inspect(service, "{{.HostConfig.CapAdd}}")
    assert capabilities.replace("CAP_", "") == "[DAC_OVERRIDE]"


def test_the_development_image_is_smaller_than_450_mb(development: Stack) -> None:
    image = f"{development.environment['COMPOSE_PROJECT_NAME']}-development"
    size_bytes = int(run_command(["docker", "image", "inspect", "--format", "{{.Size}}", image]))
    assert size_bytes < 450e6


def test_make_opens_psql_and_runs_migrations_in_the_stack(development: Stack) -> None:
    statement = "SELECT version_num FROM alembic_version;\n"
    versions = development.folder / "src/fastapi_k8s/migrations/versions"
    newest_file = max(versions.glob("0*.py"))
    assert newest_file.name[:4] in development.make("compose-psql", stdin=statement)
    assert '"message"' in development.make("compose-migrate")


def test_two_checkouts_can_run_at_the_same_time_with_separate_data(
    development: Stack, docker: DockerClient, tmp_path: Path
) -> None:
    with create_stack(copy_checkout(tmp_path)) as second:
        second.compose("up", "--wait")
        second.psql("CREATE TABLE second ()")
        assert "second" not in development.psql("\\dt")
        assert returns_200(second.client)
        assert returns_200(development.client)


@pytest.mark.usefixtures("docker")
@pytest.mark.parametrize("target", ["up", "compose-migrate", "compose-psql"])
def test_a_folder_whose_name_compose_cannot_use_is_reported_with_the_variable_to_set(
    tmp_path: Path, target: str
) -> None:
    process = subprocess.run(
        ["make", target],
        cwd=copy_checkout(tmp_path / "日本"),
        env=get_docker_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode != 0
    assert f"COMPOSE_PROJECT_NAME={NAME}\n" in process.stderr


def test_bind_mounts_have_the_label_that_selinux_requires(development: Stack) -> None:
    binds = json.loads(development.inspect("api", "{{json .HostConfig.Binds}}"))
    [source] = [bind for bind in binds if ":/app/src:" in bind]
    assert set(source.rpartition(":")[2].split(",")) >= {"ro", "z"}
