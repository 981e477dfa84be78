"""How long the service takes to start, and how much memory it takes."""

from pathlib import Path
from statistics import median
from time import monotonic

from tools.dev.servers import running

from .load import Case
from .processes import PLAIN, SERVICE, Gunicorn

STARTS, MEMORY_ROUNDS, WORKERS = 9, 3, 4


def starts(folder: Path, url: str) -> tuple[float, float]:
    """Seconds from the command to the first 200: the service's, and the bare application's."""
    service = Gunicorn(folder / "service", *SERVICE, DATABASE_URL=url)
    bare = Gunicorn(folder / "plain", *PLAIN, "--preload", "tools.benchmarks.bare:application()")
    pairs = [(_start(service), _start(bare)) for _ in range(STARTS + 1)]
    ours, its = zip(*pairs[1:], strict=True)  # the first may have compiled bytecode
    return median(ours), median(its)


def _start(server: Gunicorn) -> float:
    began = monotonic()
    with running(server):
        return monotonic() - began


def memory(folder: Path, url: str) -> tuple[float, float]:
    """MiB of WORKERS workers that have served: with preload, and each with imports of its own."""
    environment = {"DATABASE_URL": url, "WEB_CONCURRENCY": str(WORKERS)}
    preloaded = Gunicorn(folder / "preloaded", *SERVICE, **environment)
    separate = Gunicorn(
        folder / "separate", *PLAIN, "fastapi_k8s.main:application()", **environment
    )
    pairs = [(_memory(preloaded), _memory(separate)) for _ in range(MEMORY_ROUNDS)]
    ours, others = zip(*pairs, strict=True)
    return median(ours), median(others)


def _memory(server: Gunicorn) -> float:
    with running(server):
        Case("memory", server, "/version").measure(2)
        return server.memory() / 1024
