"""Prometheus metrics, right with one process and with several."""

import os
from functools import cache

from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

REGISTRY = CollectorRegistry()
REQUESTS = Histogram(
    "http_request_duration_seconds",
    "Time from a request's head to its answer's last byte.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
SHARED = "PROMETHEUS_MULTIPROC_DIR"  # the folder of the workers' files


@cache
def requests(method: str, route: str, status: int) -> Histogram:
    """What counts such requests; kept, because labels() locks and validates at each call."""
    return REQUESTS.labels(method, route, status)


async def metrics() -> PlainTextResponse:
    """Prometheus metrics, of all workers."""
    registry = REGISTRY
    if SHARED in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return PlainTextResponse(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
