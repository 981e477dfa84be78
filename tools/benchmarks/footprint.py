"""How long the service takes to start, and how much memory it uses."""

from dataclasses import dataclass
from statistics import median

from .containers import PLAIN_GUNICORN, SERVICE, Container, Image, Start, run_containers
from .docker_cli import compressed_mb
from .wrk import count_requests

STARTS = 9
MEMORY_ROUNDS = 3
WORKERS = 4
LOAD_SECONDS = 2

BARE = "tools.benchmarks.bare:create_app()"
WITHOUT_PRELOAD = "tools.benchmarks.without_preload:create_app()"


@dataclass(frozen=True)
class Footprint:
    """Medians: seconds of a start, and megabytes of 10^6 bytes of memory after load."""

    docker_start_seconds: float
    """From `docker start` to the first 200."""
    start_seconds: float
    """From the start of the first process to the first 200."""
    bare_start_seconds: float
    one_worker_mb: float
    bare_worker_mb: float
    preloaded_workers_mb: float
    separate_workers_mb: float
    """Memory of `WORKERS` workers without preload, each of which imports the application."""
    image_mb: float
    """The size of the image as a registry stores it."""


def measure_footprint(image: Image, database_url: str) -> Footprint:
    """Start containers one after the other and measure them."""
    service = image.container(*SERVICE, DATABASE_URL=database_url)
    bare = image.container(*PLAIN_GUNICORN, "--preload", BARE)
    start_pairs = [(_start(service), _start(bare)) for _ in range(STARTS + 1)]
    start_pairs = start_pairs[1:]  # the first start reads the image's files from the disk

    workers = {"DATABASE_URL": database_url, "WEB_CONCURRENCY": str(WORKERS)}
    preloaded_workers = image.container(*SERVICE, **workers)
    separate_workers = image.container(*PLAIN_GUNICORN, WITHOUT_PRELOAD, **workers)
    return Footprint(
        docker_start_seconds=median(start.seconds for start, _ in start_pairs),
        start_seconds=median(start.process_seconds for start, _ in start_pairs),
        bare_start_seconds=median(start.process_seconds for _, start in start_pairs),
        one_worker_mb=_median_memory_mb(service),
        bare_worker_mb=_median_memory_mb(bare),
        preloaded_workers_mb=_median_memory_mb(preloaded_workers),
        separate_workers_mb=_median_memory_mb(separate_workers),
        image_mb=compressed_mb(image.name),
    )


def _start(container: Container) -> Start:
    with run_containers(container):
        return container.start_durations


def _median_memory_mb(container: Container) -> float:
    return median(_memory_mb_after_load(container) for _ in range(MEMORY_ROUNDS))


def _memory_mb_after_load(container: Container) -> float:
    with run_containers(container):
        count_requests(f"{container.url}/health", LOAD_SECONDS)
        return container.memory_mb()
