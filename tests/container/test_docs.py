"""README.md, docs/compose.md and docs/dockerfile.md, followed from block to block.

In a checkout whose images and Compose projects have a name of their own, by which they are removed.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from python_on_whales import Container, DockerClient

from fastapi_k8s import NAME
from tests.checkout import PROJECT, copy_checkout, inherited, output
from tests.container.conftest import settings
from tests.template.pages import read_blocks
from tools.dev.servers import free_port, wait_until

UNTIL_CTRL_C = re.compile("docker compose up|docker compose watch|docker run .*|make docker-run")
WATCHES = re.compile("Watch (configuration|enabled)")  # before Compose 2.27, and since
ANSWERS = {"/ready": '"status":"ready"', "ALTER USER": "ALTER ROLE", "compose port": "127.0.0.1:"}
"""What commands print that did what they should."""


class Reader:
    """Somebody with one terminal, to whom nothing happens outside of this folder and engine."""

    def __init__(self, folder: Path) -> None:
        self.name = f"docs-{uuid4().hex[:12]}"
        self.folder = copy_checkout(folder / self.name)  # Compose calls the project so
        for file, before in (("Makefile", "NAME := "), ("docker-compose.yml", "image: ")):
            text = (self.folder / file).read_text()
            (self.folder / file).write_text(text.replace(before + NAME, before + self.name))
        self.exports, self.printed = folder / "exports", folder / "printed"
        self.exports.touch()
        self.port, self.second, *others = (str(free_port()) for _ in range(5))
        ports = {"PORT": self.port, "API_PORT": self.port, "DB_PORT": others[0]}
        self.environment = inherited() | ports | {"KUBECONFIG": "/dev/null"}  # no cluster
        self.instead = {
            "127.0.0.1:8000": f"127.0.0.1:{self.port}",
            "API_PORT=8001 DB_PORT=5433": f"API_PORT={self.second} DB_PORT={others[1]}",
            "DEBUG_PORT=5678": f"DEBUG_PORT={others[2]}",
            "-p second": f"-p {self.name}-second",
            f" {NAME}\n": f" {self.name}\n",
            "$HOME": ".",
            "/etc/ssl/certs": ".",  # Debian's place
        }

    def follow(self, page: str) -> None:
        """Run the blocks of a page that need Docker."""
        for info, block in read_blocks(PROJECT / page):
            if info == "sh docker":
                commands = block
                for words, own in self.instead.items():
                    commands = commands.replace(words, own)
                last = commands.splitlines()[-1]
                serves = UNTIL_CTRL_C.fullmatch(last) is not None
                self.run(commands.removesuffix(f"{last}\n") if serves else commands)
                if serves:
                    self.serve(last)

    def start(self, script: str) -> subprocess.Popen[bytes]:
        """Run a script that sees what scripts before it have exported."""
        with self.printed.open("w") as printed:
            return subprocess.Popen(
                ["sh", "-ec", f". {self.exports}\n{script}"],
                cwd=self.folder,
                env=self.environment,
                stdout=printed,
                stderr=printed,
                start_new_session=True,
            )

    def run(self, commands: str) -> None:
        """Run commands to their end, and look at what they print."""
        code = self.start(f"{commands}export -p >{self.exports}").wait()
        printed = self.printed.read_text()
        assert code == 0, f"{commands}{printed}"
        for command, answer in ANSWERS.items():
            assert command not in commands or answer in printed, f"{commands}{printed}"

    def serve(self, command: str) -> None:
        """Run a command until it does what it is for, and press Ctrl-C."""
        process = self.start(f"exec {command}")

        def serves() -> bool:
            printed = self.printed.read_text()
            assert process.poll() is None, f"{command}\n{printed}"
            watches = command.endswith("watch")
            return WATCHES.search(printed) is not None if watches else ready(self.port)

        try:
            wait_until(serves, 120, command)
        finally:
            with suppress(ProcessLookupError):  # it has failed, and ended
                os.killpg(process.pid, signal.SIGINT)
            process.wait(90)

    def remove(self) -> None:
        """Remove what the commands have made. Images by their names: they may have others too."""
        for project in (self.name, f"{self.name}-second", f"{self.name}-run"):
            output(["docker", "compose", "-p", project, "down", "--volumes", "--remove-orphans"])
        # Not `--filter=ancestor=`, which finds containers of every image of the same content.
        started = output(["docker", "container", "ls", "--all", "--format={{.Image}} {{.ID}}"])
        ids = [line.split()[1] for line in started.splitlines() if line.startswith(self.name)]
        tags, images = "--format={{.Repository}}:{{.Tag}}", f"--filter=reference={self.name}*"
        for kind, made in (
            ("container", ids),
            ("image", output(["docker", "image", "ls", tags, images]).split()),
        ):
            if made:
                output(["docker", kind, "rm", "--force", *made])


def ready(port: str) -> bool:
    """Whether a service there is ready."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready").is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def reader(docker: DockerClient, tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.remove()


def test_the_readme_leads_to_the_stack_and_to_the_image(reader: Reader) -> None:
    reader.follow("README.md")


def test_the_page_of_the_stack_ends_with_a_backup_and_the_second_stack(reader: Reader) -> None:
    reader.follow("docs/compose.md")
    assert (reader.folder / "backup.dump").read_bytes().startswith(b"PGDMP")
    assert f"{reader.name}_development" not in output(["docker", "volume", "ls", "--quiet"]).split()
    assert not ready(reader.port)
    assert ready(reader.second)


def test_the_page_of_the_image_can_be_followed_with_the_files_and_the_database_that_it_names(
    reader: Reader, docker: DockerClient, postgres: Container
) -> None:
    docker.network.connect("bridge", postgres)  # where a plain `docker run` finds it
    form = "--format={{.NetworkSettings.Networks.bridge.IPAddress}}"
    address = output(["docker", "inspect", form, postgres.id]).strip()
    (reader.folder / "sec").mkdir()
    (reader.folder / "sec" / "database_url").write_text(settings(address)["DATABASE_URL"])
    for name in (".netrc", "ca-certificates.crt", "own.pem"):
        (reader.folder / name).write_text(f"{name}\n")
    reader.follow("docs/dockerfile.md")
    assert (reader.folder / "ca-bundle.pem").read_text() == "ca-certificates.crt\nown.pem\n"
