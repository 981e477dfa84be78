"""Gunicorn to be measured, on a core of its own. Linux tells what it uses."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from tools.dev.servers import Server

PROJECT = Path(__file__).resolve().parents[2]
FIRST, *OTHERS = sorted(os.sched_getaffinity(0))
"""The core of what is measured, and those of everything else."""

SERVICE = ("-c", "python:fastapi_k8s.server")
"""The service. An application named behind it takes its place, under the same settings."""

# For what must not import the service, which its module of settings does.
PLAIN = (
    *("--worker-class", "uvicorn_worker.UvicornWorker"),
    *("--worker-tmp-dir", "/dev/shm", "--no-control-socket"),
)
"""Gunicorn with such settings of the service's as matter to start and memory, save --preload."""


class Gunicorn(Server):
    """`gunicorn *arguments`, ready when GET /health is answered.

    Its environment is `environment` alone, so that no setting of the caller's reaches it.
    """

    name = "gunicorn"

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        super().__init__(folder)
        self._arguments = arguments
        self._environment = {"PYTHONPATH": str(PROJECT), **environment}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        gunicorn = str(Path(sys.executable).parent / "gunicorn")
        bind = ["--bind", f"127.0.0.1:{self.port}"]
        pinned = ["taskset", "-c", str(FIRST)]
        return ["env", "-i", *variables, *pinned, gunicorn, *bind, *self._arguments]

    def is_ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/health", timeout=1):
                return True
        except OSError:
            return False

    def cpu(self) -> float:
        """Seconds of CPU time that the master and its workers have used."""
        ticks = 0
        for process in self.pids():
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime: proc_pid_stat(5)
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """The proportional set size of the master and its workers, in KiB."""
        return sum(map(_pss, self.pids()))


def migrate(url: str, folder: Path) -> None:
    """Bring the schema of the database at `url` to the newest revision."""
    command = [str(Path(sys.executable).parent / "fastapi-k8s"), "migrate"]
    subprocess.run(command, env={"DATABASE_URL": url}, cwd=folder, stdout=sys.stderr, check=True)


def _pss(process: int) -> int:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
