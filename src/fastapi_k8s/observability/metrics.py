"""Prometheus metrics, right with one process and with several."""

import os
from collections.abc import Callable
from functools import cache

from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, Histogram, generate_latest, values
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

REGISTRY = CollectorRegistry()
REQUESTS = Histogram(
    "http_request_duration_seconds",
    "Time from a request's head to its answer's last byte.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
SHARED = "PROMETHEUS_MULTIPROC_DIR"


def share_between_workers(directory: str, slot: Callable[[], str]) -> None:
    """Keep metrics in `directory`, in files per `slot()`, from before the first request on."""
    os.environ[SHARED] = directory
    values.ValueClass = values.MultiProcessValue(slot)  # type: ignore[no-untyped-call]


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
