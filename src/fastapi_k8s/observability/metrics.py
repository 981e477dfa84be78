"""Prometheus metrics, right with one process and with several."""

import os
from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, Histogram, generate_latest, values
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

SHARED = "PROMETHEUS_MULTIPROC_DIR"


def share_between_workers(directory: str, slot: Callable[[], str]) -> None:
    """Keep metrics in `directory`, in files per `slot()`. To be called before Metrics is made.

    A slot is a worker's place, not its process id: who replaces a dead worker counts on in its
    file, so that no count is lost and no file is left behind.
    """
    os.environ[SHARED] = directory
    values.ValueClass = values.MultiProcessValue(slot)  # type: ignore[no-untyped-call]


class Metrics:
    """What the service measures about its requests."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Time from a request's head to its answer's last byte.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._children: dict[tuple[str, str, int], Histogram] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. `method` and `route` must come from a limited set."""
        labels = method, route, status
        if labels not in self._children:  # labels() locks and validates at each call
            self._children[labels] = self._seconds.labels(*labels)
        self._children[labels].observe(seconds)

    def exposition(self) -> bytes:
        """The metrics of all workers in Prometheus' text format."""
        registry = self._registry
        if SHARED in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


router = APIRouter(tags=["service"])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> PlainTextResponse:
    """Prometheus metrics."""
    shown: Metrics = request.state.metrics
    return PlainTextResponse(shown.exposition(), media_type=CONTENT_TYPE_LATEST)
