"""Servers in containers of one image, pinned to one core, and what the kernel counts of them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from time import time
from typing import NamedTuple

from tools.dev.servers import free_port

from .docker_cli import HARDENED, docker, wait_for_health

SERVICE = ("gunicorn", "-c", "python:fastapi_k8s.server")
"""The image's command. To serve another application, append its import path."""

PLAIN_GUNICORN = (
    "gunicorn",
    "--worker-class=uvicorn_worker.UvicornWorker",
    "--worker-tmp-dir=/dev/shm",
    "--no-control-socket",
)
"""Gunicorn without an import of the service, and without --preload."""

MOUNT = "/benchmarks"
ADD_ON_PACKAGES = ("asgi_correlation_id", "prometheus_fastapi_instrumentator", "pythonjsonlogger")
"""What addons.py imports. These packages are pure Python and not in the image."""


@dataclass(frozen=True)
class Image:
    """An image by its `name`. Its containers carry `label` and are pinned to `core`."""

    name: str
    label: str
    core: int

    def container(self, *command: str, **environment: str) -> "Container":
        """A container that will run `command`, which has to start Gunicorn."""
        return Container(self, command, environment)

    def run(self, *command: str, **environment: str) -> str:
        """The standard output of `command` in a container. Exits with its message if it fails."""
        options = ("--rm", *self.options(environment))
        return docker("run", *options, self.name, *command).stdout

    def options(self, environment: dict[str, str]) -> list[str]:
        """Options for `docker create`.

        The network is the host's, so that the databases are reached without Docker's proxy. The
        user is the caller, or the memory map of the processes could not be read. Without
        --no-healthcheck the health check's own CPU time would be counted.
        """
        variables = {"PYTHONPATH": MOUNT, **environment}
        return [
            f"--label={self.label}",
            f"--cpuset-cpus={self.core}",
            f"--user={os.getuid()}:{os.getgid()}",
            "--network=host",
            "--no-healthcheck",
            "--log-opt=max-size=20m",
            *HARDENED,
            *(f"--volume={source}:{target}:ro,z" for source, target in _mounts().items()),
            *(f"--env={name}={value}" for name, value in variables.items()),
        ]


class Start(NamedTuple):
    """Seconds until the first 200, from `docker start` and from the start of the first process."""

    seconds: float
    process_seconds: float


class Container:
    """Gunicorn in a container, ready when GET /health returns 200."""

    def __init__(self, image: Image, command: tuple[str, ...], environment: dict[str, str]) -> None:
        self._image = image
        self._command = command
        self._environment = environment
        self._id = ""
        self._port = 0
        self.start_durations = Start(0, 0)
        """The durations of its last start."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the container and wait for it. Exits with its log if it does not respond."""
        self._port = free_port()
        bind = f"--bind=127.0.0.1:{self._port}"
        options = self._image.options(self._environment)
        output = docker("create", *options, self._image.name, *self._command, bind)
        self._id = output.stdout.strip()
        start_time = time()
        docker("start", self._id)
        wait_for_health(self.url, self._id)
        now = time()
        self.start_durations = Start(now - start_time, now - self._started_at())

    def remove(self) -> None:
        """Kill and remove the container, if it was created."""
        if self._id:
            docker("rm", "--force", self._id)
            self._id = ""

    def cpu_seconds(self) -> float:
        """CPU time that the processes have used so far, in user and system mode."""
        ticks = 0
        for pid in self._pids():
            stat = Path(f"/proc/{pid}/stat").read_text()
            fields_after_name = stat.rpartition(")")[2].split()
            utime, stime = fields_after_name[11:13]  # proc_pid_stat(5)
            ticks += int(utime) + int(stime)
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Proportional set size of the processes: pages that they share count once.

        In megabytes of 10^6 bytes.
        """
        return sum(_proportional_set_size_kib(pid) for pid in self._pids()) * 1024 / 1e6

    def _pids(self) -> list[int]:
        """The processes as this machine's kernel numbers them."""
        _, *pids = docker("top", self._id, "-o", "pid").stdout.split()
        if not all(Path(f"/proc/{pid}").exists() for pid in pids):
            sys.exit("bench: it needs Docker on this machine itself, not in a virtual machine")
        return [int(pid) for pid in pids]

    def _started_at(self) -> float:
        """When the first process started, in seconds since the epoch."""
        moment = docker("inspect", "--format={{.State.StartedAt}}", self._id).stdout.strip()
        return datetime.fromisoformat(moment).timestamp()


@contextmanager
def run_containers(*containers: Container) -> Iterator[None]:
    """Start containers, and remove them when the block ends."""
    try:
        for container in containers:
            container.start()
        yield
    finally:
        for container in containers:
            container.remove()


def _mounts() -> dict[str, str]:
    """Where this folder and the add-ons are in the container, by their path on this machine."""
    mounts = {str(Path(__file__).parent): f"{MOUNT}/{__package__.replace('.', '/')}"}
    for name in ADD_ON_PACKAGES:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            sys.exit(f"bench: {name} is missing: run `make bench`, which installs it")
        mounts[spec.submodule_search_locations[0]] = f"{MOUNT}/{name}"
    return mounts


def _proportional_set_size_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError(f"no proportional set size of process {pid}")
