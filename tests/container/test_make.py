"""The make targets for the image, and their messages when a requirement is missing."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from python_on_whales import DockerClient

from tests.container.conftest import Application, returns_200
from tests.docker_session import LABELS, SESSION_NAME
from tools.checkout import PROJECT, copy_checkout, get_docker_environment, run_command
from tools.dev.servers import free_port, wait_until

DOCKER_TARGETS = [
    "compose-migrate",
    "compose-psql",
    "deploy",
    "docker-build",
    "docker-build-multiarch",
    "docker-publish",
    "docker-run",
    "docker-scan",
    "docker-shell",
    "docker-size",
    "restart",
    "up",
]

INSPECT_APPLICATION = """
tr '\\0' ' ' </proc/1/cmdline
ls /proc/1/root/app
python -c 'import urllib.request as u; print(u.urlopen("http://127.0.0.1:8000/health").status)'
"""


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make in this checkout."""
    return subprocess.run(
        ["make", *arguments],
        cwd=PROJECT,
        env={**get_docker_environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def path_without_docker(tmp_path: Path) -> str:
    """A PATH that has the programs that the Makefile uses, except Docker."""
    for name in ("make", "sh", "sed", "awk", "git", "cut", "head", "cat", "sort", "uv"):
        program = shutil.which(name)
        if program:
            (tmp_path / name).symlink_to(program)
    return str(tmp_path)


@pytest.mark.parametrize("target", DOCKER_TARGETS)
def test_without_docker_the_message_links_to_its_installation(
    target: str, path_without_docker: str
) -> None:
    process = make(target, PATH=path_without_docker)
    assert process.returncode != 0
    assert process.stderr.startswith("Docker is not installed: https://")


@pytest.mark.parametrize("target", DOCKER_TARGETS)
@pytest.mark.usefixtures("docker")
def test_without_a_running_engine_the_message_says_so(target: str) -> None:
    process = make(target, DOCKER_HOST="unix:///nowhere.sock")
    assert process.returncode != 0
    assert process.stderr.startswith("Docker is not running")


@pytest.mark.parametrize("target", ["docker-run", "docker-size", "docker-scan"])
@pytest.mark.usefixtures("docker")
def test_without_an_image_the_message_names_the_target_that_builds_it(target: str) -> None:
    process = make(target, "IMAGE_NAME=never-built")
    assert process.returncode != 0
    assert process.stderr.startswith(
        "There is no image never-built:latest yet. Build it first: make docker-build"
    )


@pytest.fixture
def built_image(image: str) -> str:
    """The name of an image that `make docker-build` has built."""
    name = f"{SESSION_NAME}-built"
    assert make("docker-build", f"IMAGE_NAME={name}").returncode == 0
    return name


def test_docker_build_adds_a_content_addressed_tag_and_labels(
    docker: DockerClient, built_image: str
) -> None:
    [image_id] = {image.id for image in docker.image.list(built_image)}
    short_id = image_id.removeprefix("sha256:")[:12]
    image = docker.image.inspect(f"{built_image}:latest")
    assert set(image.repo_tags) == {f"{built_image}:latest", f"{built_image}:{short_id}"}
    labels = image.config.labels or {}
    revision = labels["org.opencontainers.image.revision"]
    if (PROJECT / ".git").exists():
        head = run_command(["git", "rev-parse", "HEAD"], cwd=PROJECT).strip()
        assert revision.removesuffix("-dirty") == head
    else:  # an archive of the project
        assert revision == "unknown"
    assert labels["org.opencontainers.image.version"] in (PROJECT / "pyproject.toml").read_text()


def test_docker_size_prints_the_compressed_size_and_the_size_on_disk(built_image: str) -> None:
    lines = make("docker-size", f"IMAGE_NAME={built_image}").stdout.splitlines()
    compressed_mb, on_disk_mb = [float(line.split()[-2]) for line in lines]
    assert 10 < compressed_mb < on_disk_mb < 300


def test_docker_run_serves_the_image_and_ctrl_c_removes_everything(
    built_image: str, tmp_path: Path
) -> None:
    copy_checkout(tmp_path)
    compose_file = tmp_path / "docker-compose.yml"
    text = compose_file.read_text()
    compose_file.write_text(text.replace("image: fastapi-k8s:", f"image: {built_image}:"))
    port = free_port()
    process = subprocess.Popen(
        ["make", "docker-run", f"IMAGE_NAME={built_image}", f"PORT={port}"],
        cwd=tmp_path,
        env=get_docker_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until(lambda: returns_200(client, "/ready"), 60, "the application's readiness")
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=90)
    project = f"--filter=label=com.docker.compose.project={built_image}-run"
    assert run_command(["docker", "container", "ls", "--quiet", "--all", project]) == ""
    assert run_command(["docker", "network", "ls", "--quiet", project]) == ""
    assert run_command(["docker", "volume", "ls", "--quiet", project]) == ""


@pytest.mark.parametrize(
    ("port", "message"),
    [("abc", "PORT must be a number, not 'abc'."), ("99999", "99999")],
)
def test_docker_run_with_an_invalid_port_does_not_remove_another_compose_project(
    docker: DockerClient, built_image: str, port: str, message: str
) -> None:
    """If Compose cannot read a file, `down` applies to the project of the caller's environment."""
    project = f"{SESSION_NAME}-other"
    labels = {"com.docker.compose.project": project, **LABELS}
    volume = docker.volume.create(f"{project}_data", labels=labels)
    try:
        process = make(
            "docker-run",
            f"IMAGE_NAME={built_image}",
            f"PORT={port}",
            COMPOSE_PROJECT_NAME=project,
        )
        assert process.returncode != 0
        assert message in process.stderr
        assert volume.exists()
    finally:
        volume.remove()


def test_docker_run_accepts_an_env_file_with_a_space_in_its_name(
    built_image: str, tmp_path: Path
) -> None:
    (tmp_path / "my settings.env").write_text("DATABASE_URL=postgresql://app:@db/app\n")
    env_file = f"ENV_FILE={tmp_path}/my settings.env"
    process = make("docker-run", f"IMAGE_NAME={built_image}", env_file)
    assert process.returncode != 0
    assert "DATABASE_URL: has an empty password" in process.stderr


def test_docker_shell_shares_processes_network_and_files_with_the_application(
    application: Application,
) -> None:
    container = f"CONTAINER={application.container.id}"
    output = run_command(
        ["make", "docker-shell", container, f"IMAGE_NAME={SESSION_NAME}"],
        cwd=PROJECT,
        env=get_docker_environment(),
        input=INSPECT_APPLICATION,
    )
    assert "gunicorn -c python:fastapi_k8s.server" in output
    assert "healthcheck.py" in output
    assert output.endswith("200\n")


@pytest.mark.usefixtures("docker")
def test_docker_publish_explains_which_builder_it_needs() -> None:
    """No builder supports this platform. A supported one would be built for minutes."""
    process = make("docker-publish", "PLATFORMS=linux/none")
    assert process.returncode != 0
    has_no_builder = "docker buildx create" in process.stderr
    has_no_emulator = "cannot build for linux/none" in process.stderr
    assert has_no_builder or has_no_emulator
