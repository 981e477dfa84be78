"""A service made from this checkout: a git repository of its own, in which make targets run."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.checkout import copy_checkout, inherited, output
from tools.dev.servers import free_port, wait_until

KEPT = ("CI", "GOCACHE", "GOPATH", "GOPROXY", "UV_CACHE_DIR", "UV_PYTHON")


@dataclass(frozen=True)
class Fork:
    """A repository in `folder`."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """As in a terminal of somebody who commits."""
        committer = {
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@example.com",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@example.com",
        }
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        return inherited() | kept | committer

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A program in the folder, whatever becomes of it."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def done(self, *command: str) -> str:
        """What a program prints, which has to succeed."""
        ran = self.run(*command)
        assert ran.returncode == 0, f"{' '.join(command)}:\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    def commit(self) -> None:
        """Commit everything."""
        self.done("git", "add", "--all")
        self.done("git", "commit", "--quiet", "--message", "A change")

    def rename(self, name: str) -> None:
        """Give the service another name, and commit that."""
        self.done("make", "rename", f"NAME={name}")
        self.commit()

    def files(self) -> dict[str, str]:
        """The text of every file that git knows."""
        names = output(["git", "ls-files", "-z"], cwd=self.folder).split("\0")
        paths = {name: self.folder / name for name in names if name}
        return {n: path.read_text(errors="replace") for n, path in paths.items() if path.is_file()}

    def passes(self, *tests: str) -> None:
        """Lint and tests pass, with the coverage gate."""
        self.done("make", "lint")
        self.done("make", "test", *tests)

    @contextmanager
    def running(self) -> Iterator[httpx.Client]:
        """The service, by `make run`, and a client for it."""
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

            def ready() -> bool:
                assert process.poll() is None, "make run has ended"
                try:
                    return client.get("/ready").is_success
                except httpx.TransportError:
                    return False

            try:
                wait_until(ready, 120, "the service")
                yield client
            finally:
                os.killpg(process.pid, signal.SIGINT)


def fork(folder: Path) -> Fork:
    """A new repository with one commit, of the files of this checkout."""
    made = Fork(copy_checkout(folder))
    made.done("git", "init", "--quiet", "--initial-branch=main")
    made.commit()
    return made


@contextmanager
def images_of(name: str) -> Iterator[None]:
    """Remove the images called `name` in the end."""
    try:
        yield
    finally:
        tags = "--format={{.Repository}}:{{.Tag}}"
        if made := output(["docker", "image", "ls", tags, name]).split():
            output(["docker", "image", "rm", *made])
