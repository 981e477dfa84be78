"""wrk, and what a server does under it."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .processes import Gunicorn

ONCE = Path(__file__).with_name("once.lua")
CONNECTIONS = 32


class Sample(NamedTuple):
    """`rate` in requests per second, `cpu` in microseconds of CPU time per request."""

    rate: float
    cpu: float


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Case:
    """A request to `server`: of `path`, or of each item once whose ids are in the file `ids`.

    `prepare` is called before each measurement.
    """

    name: str
    server: Gunicorn
    path: str = "/health"
    ids: Path | None = None
    prepare: Callable[[], None] = _nothing

    def measure(self, seconds: int) -> Sample:
        """Ask for `seconds`. Raises RuntimeError if anything was answered but 200."""
        self.prepare()
        before = self.server.cpu()
        count, rate = self._wrk(seconds)
        return Sample(rate, (self.server.cpu() - before) / count * 1e6)

    def _wrk(self, seconds: int) -> tuple[int, float]:
        script = ["-s", str(ONCE)] if self.ids else []
        arguments = ["--", str(self.ids)] if self.ids else []
        size = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
        command = ["wrk", *size, *script, self.server.url + self.path, *arguments]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        count = re.search(r"(\d+) requests in", shown)
        rate = re.search(r"Requests/sec: *([\d.]+)", shown)
        if not count or not rate or re.search(r"Non-2xx|Socket errors", shown):
            raise RuntimeError(f"{self.name}: wrk says\n{shown}")
        return int(count[1]), float(rate[1])
