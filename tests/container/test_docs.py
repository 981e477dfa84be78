"""The commands in README.md, docs/compose.md and docs/dockerfile.md, run block by block.

They run in a copy of the checkout. Its images and Compose projects have a name that no other test
uses, so that they can be removed by it. The example of docs/streams.md runs in an image too.
"""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from python_on_whales import Container, DockerClient

from fastapi_k8s import NAME
from tests.container.conftest import RunApplication, application_environment
from tests.docker_session import LABELS, SESSION_NAME, BuildLock
from tests.template.event_streams import event_streams, measure_exit_seconds
from tests.template.pages import documented_events, read_blocks
from tools.checkout import PROJECT, copy_checkout, get_docker_environment, run_command
from tools.dev.servers import free_port, wait_until

SERVING_COMMAND = re.compile("docker compose up|docker compose watch|docker run .*|make docker-run")
"""A command that runs until Ctrl-C is pressed."""

WATCHING = re.compile("Watch (configuration|enabled)")
"""What `docker compose watch` prints when it watches. Compose 2.27 changed the second word."""

EXPECTED_OUTPUTS = {
    "/ready": '"status":"ready"',
    "ALTER USER": "ALTER ROLE",
    "compose port": "127.0.0.1:",
}
"""What the output contains if a block contains a command."""


class Terminal:
    """A terminal in which the blocks of a page run. It affects only its own folder and images."""

    def __init__(self, folder: Path) -> None:
        self.name = f"docs-{uuid4().hex[:12]}"
        # The name of the folder becomes the name of the Compose project.
        self.folder = copy_checkout(folder / self.name)
        self._rename_image("Makefile", "NAME := ")
        self._rename_image("docker-compose.yml", "image: ")
        self.exports = folder / "exports"
        self.exports.touch()
        self.log = folder / "log"
        self.port = str(free_port())
        self.second_port = str(free_port())
        database_port, second_database_port, debug_port = (str(free_port()) for _ in range(3))
        self.environment = get_docker_environment() | {
            "PORT": self.port,
            "API_PORT": self.port,
            "DB_PORT": database_port,
            "KUBECONFIG": "/dev/null",  # The blocks must not reach a cluster.
        }
        self.replacements = {
            "127.0.0.1:8000": f"127.0.0.1:{self.port}",
            "API_PORT=8001 DB_PORT=5433": (
                f"API_PORT={self.second_port} DB_PORT={second_database_port}"
            ),
            "DEBUG_PORT=5678": f"DEBUG_PORT={debug_port}",
            "-p second": f"-p {self.name}-second",
            f" {NAME}\n": f" {self.name}\n",
            "$HOME": ".",
            "/etc/ssl/certs": ".",
        }

    def _rename_image(self, file: str, prefix: str) -> None:
        """Replace the name of the image after `prefix` in a file."""
        path = self.folder / file
        path.write_text(path.read_text().replace(prefix + NAME, prefix + self.name))

    def follow(self, page: str) -> None:
        """Run the blocks of a page that need Docker."""
        for info, block in read_blocks(PROJECT / page):
            if info == "sh docker":
                self.run_block(block)

    def run_block(self, block: str) -> None:
        """Run a block to its end, or until its last command serves."""
        for text, replacement in self.replacements.items():
            block = block.replace(text, replacement)
        last_command = block.splitlines()[-1]
        if SERVING_COMMAND.fullmatch(last_command):
            self.run(block.removesuffix(f"{last_command}\n"))
            self.serve(last_command)
        else:
            self.run(block)

    def start(self, script: str) -> subprocess.Popen[bytes]:
        """Start a script. It has the variables that earlier scripts exported."""
        with self.log.open("w") as log:
            return subprocess.Popen(
                ["sh", "-ec", f". {self.exports}\n{script}"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, commands: str) -> None:
        """Run commands to their end, and check their output."""
        exit_code = self.start(f"{commands}export -p >{self.exports}").wait()
        output = self.log.read_text()
        assert exit_code == 0, f"{commands}{output}"
        for command, expected_output in EXPECTED_OUTPUTS.items():
            if command in commands:
                assert expected_output in output, f"{commands}{output}"

    def serve(self, command: str) -> None:
        """Run a command until the service is ready or files are watched, then press Ctrl-C."""
        process = self.start(f"exec {command}")

        def has_started() -> bool:
            output = self.log.read_text()
            assert process.poll() is None, f"{command}\n{output}"
            if command.endswith("watch"):
                return WATCHING.search(output) is not None
            return is_ready(self.port)

        try:
            wait_until(has_started, 120, command)
        finally:
            with suppress(ProcessLookupError):  # The command may have failed and ended.
                os.killpg(process.pid, signal.SIGINT)
            process.wait(90)

    def remove(self) -> None:
        """Remove the containers, volumes and images that the commands created."""
        for project in (self.name, f"{self.name}-second", f"{self.name}-run"):
            run_command(
                ["docker", "compose", "-p", project, "down", "--volumes", "--remove-orphans"]
            )
        # `--filter=ancestor=` would also find containers of other images with the same content.
        container_format = "--format={{.Image}} {{.ID}}"
        containers = run_command(["docker", "container", "ls", "--all", container_format])
        for line in containers.splitlines():
            image, container_id = line.split()
            if image.startswith(self.name):
                run_command(["docker", "container", "rm", "--force", container_id])
        # By tag, not by id: another test may have an image with the same content.
        tag_format = "--format={{.Repository}}:{{.Tag}}"
        reference = f"--filter=reference={self.name}*"
        for tag in run_command(["docker", "image", "ls", tag_format, reference]).split():
            run_command(["docker", "image", "rm", "--force", tag])


def is_ready(port: str) -> bool:
    """Whether a service on this port is ready."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready").is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def terminal(docker: DockerClient, tmp_path: Path) -> Iterator[Terminal]:
    """A terminal whose containers and images are removed after the test."""
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.remove()


def test_the_commands_of_the_readme_start_the_stack_and_the_image(terminal: Terminal) -> None:
    terminal.follow("README.md")


def test_the_commands_of_the_compose_page_leave_a_backup_and_the_second_stack(
    terminal: Terminal,
) -> None:
    terminal.follow("docs/compose.md")
    assert (terminal.folder / "backup.dump").read_bytes().startswith(b"PGDMP")
    volumes = run_command(["docker", "volume", "ls", "--quiet"]).split()
    assert f"{terminal.name}_development" not in volumes
    assert not is_ready(terminal.port)
    assert is_ready(terminal.second_port)


def test_the_commands_of_the_dockerfile_page_work_with_the_files_and_database_that_it_names(
    terminal: Terminal, docker: DockerClient, postgres: Container
) -> None:
    docker.network.connect("bridge", postgres)  # The network of a plain `docker run`.
    address_format = "--format={{.NetworkSettings.Networks.bridge.IPAddress}}"
    address = run_command(["docker", "inspect", address_format, postgres.id]).strip()
    (terminal.folder / "sec").mkdir()
    (terminal.folder / "sec" / "database_url").write_text(
        application_environment(address)["DATABASE_URL"]
    )
    for name in (".netrc", "ca-certificates.crt", "own.pem"):
        (terminal.folder / name).write_text(f"{name}\n")
    terminal.follow("docs/dockerfile.md")
    bundle = (terminal.folder / "ca-bundle.pem").read_text()
    assert bundle == "ca-certificates.crt\nown.pem\n"


@pytest.fixture
def image_with_events(docker: DockerClient, tmp_path: Path, build_lock: BuildLock) -> str:
    """The tag of an image with the endpoint of docs/streams.md."""
    checkout = copy_checkout(tmp_path / "events")
    tag = f"{SESSION_NAME}-events"
    with documented_events(checkout), build_lock():
        docker.build(checkout, labels=LABELS, tags=tag, progress=False)
    return tag


async def test_documented_streams_end_completely_and_do_not_delay_the_exit(
    run_application: RunApplication, image_with_events: str
) -> None:
    with run_application({"DRAIN_SECONDS": "5"}, image_with_events) as application:
        url = str(application.client.base_url.join("/events"))
        async with event_streams(url, clients=50) as statistics:
            await wait_for(lambda: statistics.open_streams == 50)
            await wait_for(lambda: statistics.event_count >= 100)
            stop = asyncio.create_task(asyncio.to_thread(application.container.stop, 60))
            await wait_for(lambda: statistics.ended_streams >= 50)
        await stop
        assert application.container.state.exit_code == 0
        log = str(application.container.logs())
    assert statistics.failures == []
    assert 5 < measure_exit_seconds(log) < 8
    assert "cut_by" not in log
    assert "ERROR" not in log


async def wait_for(condition: Callable[[], bool]) -> None:
    """Return when the condition is met. Other tasks of the event loop continue meanwhile."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)
