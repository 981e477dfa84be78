"""Prometheus metrics of one worker process or of several."""

import os
from functools import cache

from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROC_DIR_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the directory in which workers share their metrics.

See https://prometheus.github.io/client_python/multiprocess/.
"""

REGISTRY = CollectorRegistry()
REQUEST_DURATION = Histogram(
    "http_request_duration_seconds",
    "Time from the head of a request to the last byte of its response.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
REFUSED_REQUESTS = Counter(
    "http_requests_refused",
    "Requests that were refused before the application was called.",
    ["status"],
    registry=REGISTRY,
)


@cache
def request_duration(method: str, route: str, status: int) -> Histogram:
    """The histogram with these labels. Cached, because labels() locks and validates each time."""
    return REQUEST_DURATION.labels(method, route, status)


async def get_metrics() -> PlainTextResponse:
    """Prometheus metrics of all workers."""
    registry = REGISTRY
    if MULTIPROC_DIR_VARIABLE in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return PlainTextResponse(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
