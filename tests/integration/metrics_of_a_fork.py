"""A module of a fork: metrics that are created at import, and an application that uses them."""

import os

from fastapi import FastAPI
from prometheus_client import Counter, Gauge, Histogram, Summary

from fastapi_k8s import main
from fastapi_k8s.observability.metrics import REGISTRY

ORDERS = Counter("orders_shipped", "Orders that were shipped.", registry=REGISTRY)
ORDERS_BY_SIZE = Counter("orders", "Orders by size.", ["size"], registry=REGISTRY)
SMALL_ORDERS = ORDERS_BY_SIZE.labels("small")
ORDER_SIZE = Histogram("order_size", "Parts of an order.", buckets=[1], registry=REGISTRY)
ORDER_WEIGHT = Summary("order_weight", "Grams of an order.", registry=REGISTRY)
UNUSED = Counter("unused", "Never incremented.", registry=REGISTRY)
IN_PROGRESS = Gauge("orders_in_progress", "Now.", multiprocess_mode="livesum", registry=REGISTRY)
LOWEST_STOCK = Gauge("stock", "In store.", multiprocess_mode="min", registry=REGISTRY)
RELEASE = Gauge("release", "Release.", ["name"], multiprocess_mode="livemax", registry=REGISTRY)
RELEASE.labels("one").set(1)
LAST_RELEASE = Gauge(
    "release_time_seconds", "Time.", multiprocess_mode="mostrecent", registry=REGISTRY
)
LAST_RELEASE.set(1_700_000_000)


def create_app() -> FastAPI:
    """The application with a route that uses each metric."""
    app = main.create_app_from_environment()

    @app.post("/orders")
    async def ship_order() -> int:
        """Return the process id of the worker."""
        ORDERS.inc()
        SMALL_ORDERS.inc()
        ORDER_SIZE.observe(1)
        ORDER_WEIGHT.observe(5)
        IN_PROGRESS.inc()
        LOWEST_STOCK.set(3)
        return os.getpid()

    return app
