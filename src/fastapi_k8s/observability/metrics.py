"""Prometheus metrics of one worker process or of several.

Their names are those of OpenTelemetry's semantic conventions, as Prometheus spells them: see
https://opentelemetry.io/docs/specs/semconv/http/http-metrics/.
"""

import asyncio
import os
import platform
from collections import Counter as Counts
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache

from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROC_DIR_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the directory in which workers share their metrics.

See https://prometheus.github.io/client_python/multiprocess/.
"""

SAMPLE_SECONDS = 1.0
"""How often a worker writes its sampled metrics, which other workers return in /metrics."""

REGISTRY = CollectorRegistry()
REQUEST_DURATION = Histogram(
    "http_server_request_duration_seconds",
    "Time from the head of a request to the last byte of its response.",
    ["http_request_method", "http_route", "http_response_status_code"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    registry=REGISTRY,
)
ACTIVE_REQUESTS = Gauge(
    "http_server_active_requests",
    "Requests whose response is not complete.",
    ["http_request_method"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
REFUSED_REQUESTS = Counter(
    "http_server_refused_requests",
    "Requests that were refused before the application was called.",
    ["http_response_status_code"],
    registry=REGISTRY,
)
BUILD_INFO = Gauge(
    "build_info",
    "The release that is running, in the labels. The value is 1.",
    ["version", "commit", "python"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)

active_requests: Counts[str] = Counts()
"""The requests of this process whose response is not complete, by method.

Each change of a gauge would cost a request 1 µs.
"""

Sampler = Callable[[], None]
_samplers: list[Sampler] = []


@cache
def request_duration(method: str, route: str, status: int) -> Histogram:
    """The histogram with these labels. Cached, because labels() locks and validates each time.

    `route` is empty if no route matches, and `status` is 0 if there is no response.
    """
    return REQUEST_DURATION.labels(method, route, status or "")


def set_build_info(version: str, commit: str) -> None:
    """Set the labels of `build_info`."""
    BUILD_INFO.labels(version, commit, platform.python_version()).set(1)


def sample_active_requests() -> None:
    """Write the number of active requests of this process."""
    for method, number in active_requests.items():
        ACTIVE_REQUESTS.labels(method).set(number)


@asynccontextmanager
async def sampling(*samplers: Sampler) -> AsyncIterator[None]:
    """Call `samplers` every SAMPLE_SECONDS, before each response of /metrics, and at the end.

    A sampler writes metrics that would cost too much CPU time if each request wrote them.
    """
    _samplers.extend(samplers)
    task = asyncio.create_task(_sample_regularly())
    try:
        yield
    finally:
        task.cancel()
        _sample()
        for sampler in samplers:
            _samplers.remove(sampler)


async def _sample_regularly() -> None:
    while True:
        _sample()
        await asyncio.sleep(SAMPLE_SECONDS)


def _sample() -> None:
    for sampler in _samplers:
        sampler()


async def get_metrics() -> PlainTextResponse:
    """Prometheus metrics of all workers."""
    _sample()
    registry = REGISTRY
    if MULTIPROC_DIR_VARIABLE in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return PlainTextResponse(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
