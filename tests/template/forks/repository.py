"""A service that is made from this checkout: a git repository in which make targets run."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tools.checkout import PROJECT, copy_checkout, get_docker_environment, run_command
from tools.dev.servers import free_port, wait_until

SHARED_VARIABLES = (
    "CI",
    "GOCACHE",
    "GOPATH",
    "GOPROXY",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "UV_CACHE_DIR",
    "UV_PYTHON",
)
"""Variables of the test run that also apply in a repository, caches among them."""

COMMITTER = {
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
}


@dataclass(frozen=True)
class Repository:
    """A git repository in `folder`."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of the programs that run in the repository."""
        environment = get_docker_environment() | COMMITTER
        for name in SHARED_VARIABLES:
            if name in os.environ:
                environment[name] = os.environ[name]
        # Without this, `make` would install uv again in each repository.
        environment["PATH"] = f"{PROJECT / '.uv' / 'bin'}{os.pathsep}{environment['PATH']}"
        return environment

    @property
    def package(self) -> Path:
        """The folder of the service's package."""
        return next(self.folder.glob("src/*/main.py")).parent

    def try_run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the folder, which may fail."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *command: str) -> str:
        """Run a program in the folder and return its standard output. It has to succeed."""
        process = self.try_run(*command)
        output = f"{process.stdout}{process.stderr}"
        assert process.returncode == 0, f"{' '.join(command)} failed:\n{output}"
        return process.stdout

    def commit(self) -> None:
        """Commit everything."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "Change something")

    def rename(self, name: str) -> None:
        """Give the service another name, and commit the change."""
        self.run("make", "rename", f"NAME={name}")
        self.commit()

    def remove_example(self) -> None:
        """Remove the items, and commit the change."""
        self.run("make", "remove-example")
        self.commit()

    def read_files(self) -> dict[str, str]:
        """Return the text of every file that git tracks, by its path."""
        files: dict[str, str] = {}
        for name in self.run("git", "ls-files", "-z").split("\0"):
            path = self.folder / name
            if path.is_file():
                files[name] = path.read_text(errors="replace")
        return files

    @contextmanager
    def serve(self) -> Iterator[httpx.Client]:
        """Run the service with `make run`, and yield a client for it."""
        port = str(free_port())
        with (
            subprocess.Popen(
                ["make", "run"],
                cwd=self.folder,
                env=self.environment | {"PORT": port},
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            ) as process,
            httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
        ):

            def is_ready() -> bool:
                assert process.poll() is None, "make run has ended"
                try:
                    return client.get("/ready").is_success
                except httpx.TransportError:
                    return False

            try:
                wait_until(is_ready, 120, "the service")
                yield client
            finally:
                os.killpg(process.pid, signal.SIGINT)


def create_repository(folder: Path) -> Repository:
    """Create a repository with one commit that contains the files of this checkout."""
    repository = Repository(copy_checkout(folder))
    repository.run("git", "init", "--quiet", "--initial-branch=main")
    repository.commit()
    return repository


@contextmanager
def remove_images_afterwards(name: str) -> Iterator[None]:
    """Remove all images called `name` when the block ends."""
    try:
        yield
    finally:
        tag_format = "--format={{.Repository}}:{{.Tag}}"
        tags = run_command(["docker", "image", "ls", tag_format, name]).split()
        if tags:
            run_command(["docker", "image", "rm", *tags])
