"""How long the service takes to start, and how much memory it uses."""

from dataclasses import dataclass
from statistics import median

from .containers import PLAIN_GUNICORN, SERVICE, Container, Image, run_containers
from .wrk import count_requests

STARTS = 9
MEMORY_ROUNDS = 3
WORKERS = 4
LOAD_SECONDS = 2

BARE = "tools.benchmarks.bare:create_app()"
WITHOUT_PRELOAD = "tools.benchmarks.without_preload:create_app()"


@dataclass(frozen=True)
class Footprint:
    """Medians: the seconds of a start, and MiB of memory after load."""

    start_seconds: float
    bare_start_seconds: float
    one_worker_mib: float
    preloaded_workers_mib: float
    separate_workers_mib: float
    """Memory of `WORKERS` workers without preload, each of which imports the application."""


def measure_footprint(image: Image, database_url: str) -> Footprint:
    """Start containers one after the other and measure them."""
    service = image.container(*SERVICE, DATABASE_URL=database_url)
    bare = image.container(*PLAIN_GUNICORN, "--preload", BARE)
    start_pairs = [(_start_seconds(service), _start_seconds(bare)) for _ in range(STARTS + 1)]
    start_pairs = start_pairs[1:]  # the first start reads the image's files from the disk

    workers = {"DATABASE_URL": database_url, "WEB_CONCURRENCY": str(WORKERS)}
    preloaded_workers = image.container(*SERVICE, **workers)
    separate_workers = image.container(*PLAIN_GUNICORN, WITHOUT_PRELOAD, **workers)
    return Footprint(
        start_seconds=median(start for start, _ in start_pairs),
        bare_start_seconds=median(start for _, start in start_pairs),
        one_worker_mib=_median_memory_mib(service),
        preloaded_workers_mib=_median_memory_mib(preloaded_workers),
        separate_workers_mib=_median_memory_mib(separate_workers),
    )


def _start_seconds(container: Container) -> float:
    with run_containers(container):
        return container.start_seconds


def _median_memory_mib(container: Container) -> float:
    return median(_memory_mib_after_load(container) for _ in range(MEMORY_ROUNDS))


def _memory_mib_after_load(container: Container) -> float:
    with run_containers(container):
        count_requests(f"{container.url}/version", LOAD_SECONDS)
        return container.memory_mib()
