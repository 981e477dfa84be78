"""Fixtures of all tests that need Docker: the client, and the image of this checkout.

Each pytest process has its own session name. The session name is the name or a label of every
image, container and network that the process creates, so that the process can remove them.
tests/conftest.py imports the fixtures: two folders with their own `docker` would each remove the
resources of the other at the end.
"""

import fcntl
import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

import pytest
from python_on_whales import DockerClient

from fastapi_k8s import NAME
from tools.checkout import PROJECT, copy_checkout, run_command

SESSION_NAME = f"{NAME}-test-{uuid4().hex[:12]}"
LABELS = {f"{NAME}.test": SESSION_NAME}
BUILD_ARGS = {
    "APP_VERSION": "1.2.3",
    "GIT_SHA": "0123abc",
    "CREATED": "2026-01-02T03:04:05Z",
    "SOURCE": "https://example.com/service",
}
BuildLock: TypeAlias = Callable[[], AbstractContextManager[None]]


def find_missing_requirement() -> str:
    """Return what these tests need and this machine does not have, or an empty string."""
    if not shutil.which("docker"):
        return "Docker is not installed."
    for command in (["info"], ["buildx", "version"], ["compose", "version"]):
        process = subprocess.run(["docker", *command], capture_output=True, check=False)
        if process.returncode != 0:
            return f"`docker {' '.join(command)}` fails. The tests need Docker, Buildx and Compose."
    return ""


@pytest.fixture(scope="session")
def docker() -> Iterator[DockerClient]:
    """A Docker client. Tests are skipped without Docker, but with `CI=true` they fail."""
    reason = find_missing_requirement()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    yield DockerClient()
    remove_session_resources()


def remove_session_resources() -> None:
    """Remove the containers, networks and images of this pytest process."""
    label = f"--filter=label={NAME}.test={SESSION_NAME}"
    reference = f"--filter=reference={SESSION_NAME}*"
    for list_command, remove_command in (
        (["container", "ls", "--quiet", "--all", label], ["container", "rm", "--force"]),
        (["network", "ls", "--quiet", label], ["network", "rm"]),
        (["image", "ls", "--quiet", label], ["image", "rm", "--force"]),
        (["image", "ls", "--quiet", reference], ["image", "rm", "--force"]),
    ):
        ids = set(run_command(["docker", *list_command]).split())
        if ids:
            run_command(["docker", *remove_command, *ids])


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout without ignored files, which only its owner may read."""
    return copy_private_checkout(tmp_path_factory.mktemp("checkout"))


def copy_private_checkout(target: Path) -> Path:
    """Copy this checkout. Files and folders have the modes of a clone that umask 077 made."""
    copy_checkout(target)
    run_command(["chmod", "--recursive", "go=", str(target)])
    return target


@pytest.fixture(scope="session")
def build_lock(tmp_path_factory: pytest.TempPathFactory) -> BuildLock:
    """A context manager in which no other pytest process builds an image.

    BuildKit shares identical steps of simultaneous builds. Without the lock, a build with a cache
    would take part in a step of a build without one, and tests about the cache would fail.
    """

    @contextmanager
    def acquire() -> Iterator[None]:
        shared_folder = tmp_path_factory.getbasetemp().parent
        with (shared_folder / "build.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    return acquire


def read_extras() -> list[str]:
    """Return the names of the optional dependencies of pyproject.toml."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return list(project["optional-dependencies"])


@pytest.fixture(scope="session")
def image(docker: DockerClient, checkout: Path, build_lock: BuildLock) -> str:
    """The tag of the production image. Parallel pytest processes share the build cache."""
    with build_lock():
        docker.build(
            checkout, build_args=BUILD_ARGS, labels=LABELS, tags=SESSION_NAME, progress=False
        )
    return SESSION_NAME


@pytest.fixture(scope="session")
def image_with_extras(docker: DockerClient, checkout: Path, build_lock: BuildLock) -> str:
    """The tag of the production image with all optional dependencies."""
    tag = f"{SESSION_NAME}-extras"
    build_args = BUILD_ARGS | {"EXTRAS": " ".join(read_extras())}
    with build_lock():
        docker.build(checkout, build_args=build_args, labels=LABELS, tags=tag, progress=False)
    return tag
