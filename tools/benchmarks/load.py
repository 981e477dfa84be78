"""wrk, and what a server does under it."""

import re
import subprocess
from dataclasses import dataclass
from typing import NamedTuple

from .processes import Gunicorn

CONNECTIONS = 32


class Sample(NamedTuple):
    """`rate` in requests per second, `cpu` in microseconds of CPU time per request."""

    rate: float
    cpu: float


@dataclass(frozen=True)
class Case:
    """Requests for `path` to `server`."""

    name: str
    server: Gunicorn
    path: str = "/health"

    def measure(self, seconds: int) -> Sample:
        """Ask for `seconds`. Raises RuntimeError if anything was answered but 200."""
        before = self.server.cpu()
        count, rate = self.ask(seconds)
        return Sample(rate, (self.server.cpu() - before) / count * 1e6)

    def ask(self, seconds: int) -> tuple[int, float]:
        """How many requests were answered, and how many a second."""
        return wrk(seconds, self.server.url + self.path)


def wrk(seconds: int, *arguments: str) -> tuple[int, float]:
    """What wrk counts in `seconds`: the requests, and those a second."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    count = re.search(r"(\d+) requests in", shown)
    rate = re.search(r"Requests/sec: *([\d.]+)", shown)
    if not count or not rate or re.search(r"Non-2xx|Socket errors", shown):
        raise RuntimeError(f"{' '.join(command)} says\n{shown}")
    return int(count[1]), float(rate[1])
