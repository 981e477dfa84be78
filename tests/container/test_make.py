"""The make targets around the image, and what they say when something is missing."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from python_on_whales import DockerClient

from tests.checkout import PROJECT, copy_checkout, inherited, output
from tests.container.conftest import LABELS, RUN, Service, answers
from tools.dev.servers import free_port, wait_until

TARGETS = ["docker-build", "docker-run", "docker-shell", "docker-size", "docker-scan", "up"]
TARGETS += ["docker-build-multiarch", "docker-publish", "docker-digests", "deploy", "restart"]
TARGETS += ["compose-psql", "compose-migrate"]


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make in this checkout."""
    return subprocess.run(
        ["make", *arguments],
        cwd=PROJECT,
        env={**inherited(), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tools(tmp_path: Path) -> str:
    """A PATH with what a Makefile uses, but without Docker."""
    for name in ("make", "sh", "sed", "awk", "git", "cut", "head", "cat", "uv"):
        if found := shutil.which(name):
            (tmp_path / name).symlink_to(found)
    return str(tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_without_docker_every_target_says_where_to_get_it(target: str, tools: str) -> None:
    done = make(target, PATH=tools)
    assert done.returncode != 0
    assert done.stderr.startswith("Docker is not installed: https://")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.usefixtures("docker")
def test_with_the_engine_stopped_every_target_says_to_start_it(target: str) -> None:
    done = make(target, DOCKER_HOST="unix:///nowhere.sock")
    assert done.returncode != 0
    assert done.stderr.startswith("Docker is not running")


@pytest.mark.parametrize("target", ["docker-run", "docker-size", "docker-scan"])
@pytest.mark.usefixtures("docker")
def test_without_an_image_a_target_that_needs_one_says_how_to_build_it(target: str) -> None:
    done = make(target, "IMAGE_NAME=never-built")
    assert done.returncode != 0
    assert done.stderr.startswith(
        "There is no image never-built:latest yet. Build it first: make docker"
    )


@pytest.fixture
def built(image: str) -> str:
    """The name of an image that `make docker-build` has built."""
    name = f"{RUN}-built"
    assert make("docker-build", f"IMAGE_NAME={name}").returncode == 0
    return name


def test_docker_build_tags_the_image_by_its_content_and_labels_it_with_its_commit(
    docker: DockerClient, built: str
) -> None:
    (found,) = {each.id for each in docker.image.list(built)}
    tags = {tag for each in docker.image.list(built) for tag in each.repo_tags}
    assert tags == {f"{built}:latest", f"{built}:{found.removeprefix('sha256:')[:12]}"}
    labels = docker.image.inspect(f"{built}:latest").config.labels or {}
    head = output(["git", "rev-parse", "HEAD"], cwd=PROJECT).strip()
    told = labels["org.opencontainers.image.revision"]
    assert told.removesuffix("-dirty") == head
    assert labels["org.opencontainers.image.version"] in (PROJECT / "pyproject.toml").read_text()


def test_docker_size_prints_both_sizes(built: str) -> None:
    lines = make("docker-size", f"IMAGE_NAME={built}").stdout.splitlines()
    compressed, on_disk = (float(line.split()[-2]) for line in lines)
    assert 10 < compressed < on_disk < 300


def test_docker_run_serves_the_image_and_ctrl_c_leaves_nothing(built: str, tmp_path: Path) -> None:
    copy_checkout(tmp_path)
    compose = tmp_path / "docker-compose.yml"
    compose.write_text(compose.read_text().replace("image: fastapi-k8s:", f"image: {built}:"))
    port = free_port()
    running = subprocess.Popen(
        ["make", "docker-run", f"IMAGE_NAME={built}", f"PORT={port}"],
        cwd=tmp_path,
        env=inherited(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until(lambda: answers(client, "/ready"), 60, "the service's readiness")
    finally:
        os.killpg(running.pid, signal.SIGINT)
        running.communicate(timeout=90)
    label = f"label=com.docker.compose.project={built}-run"
    for kind in ("container", "network", "volume"):
        flags = ["--all"] if kind == "container" else []
        assert output(["docker", kind, "ls", "--quiet", "--filter", label, *flags]) == ""


def test_docker_run_refuses_a_port_that_is_no_number_and_leaves_other_projects_alone(
    docker: DockerClient, built: str
) -> None:
    """Compose falls back to the exported project when it cannot read a file."""
    project = f"{RUN}-mine"
    volume = docker.volume.create(
        f"{project}_data", labels={"com.docker.compose.project": project, **LABELS}
    )
    try:
        done = make("docker-run", f"IMAGE_NAME={built}", "PORT=abc", COMPOSE_PROJECT_NAME=project)
        assert done.returncode != 0
        assert "PORT must be a number, not 'abc'." in done.stderr
        done = make("docker-run", f"IMAGE_NAME={built}", "PORT=99999", COMPOSE_PROJECT_NAME=project)
        assert done.returncode != 0
        assert volume.exists()
    finally:
        volume.remove()


def test_docker_run_takes_an_env_file_with_a_space_in_its_name(built: str, tmp_path: Path) -> None:
    (tmp_path / "my settings.env").write_text("DATABASE_URL=postgresql://app:@db/app\n")
    done = make("docker-run", f"IMAGE_NAME={built}", f"ENV_FILE={tmp_path}/my settings.env")
    assert done.returncode != 0
    assert "DATABASE_URL: Value error, has no password" in done.stderr


def test_docker_shell_sees_the_process_the_port_and_the_files_of_the_service(
    service: Service,
) -> None:
    ask = (
        "tr '\\0' ' ' </proc/1/cmdline; ls /proc/1/root/app\n"
        "python -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:8000/health\").status)'\n"
    )
    told = output(
        ["make", "docker-shell", f"CONTAINER={service.container.id}", f"IMAGE_NAME={RUN}"],
        cwd=PROJECT,
        env=inherited(),
        input=ask,
    )
    assert "gunicorn -c python:fastapi_k8s.server" in told
    assert "healthcheck.py" in told
    assert told.endswith("200\n")


def test_the_plain_engine_is_told_from_a_builder_of_several_architectures(
    docker: DockerClient,
) -> None:
    """With a builder the target would build or push, for minutes: its refusal is what is seen."""
    done = make("docker-publish", "PLATFORMS=linux/none")
    assert done.returncode != 0
    assert "docker buildx create" in done.stderr or "cannot build for linux/none" in done.stderr
