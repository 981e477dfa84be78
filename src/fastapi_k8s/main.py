"""The whole composition."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse

from . import NAME, errors, health
from .cache import open_cache
from .database import open_database
from .items import routes as items  # example
from .migrations import newest_revision
from .observability import metrics
from .observability.requests import Observe
from .settings import Settings, load_settings


def create_app(settings: Settings) -> FastAPI:
    """The application. It does no I/O until its lifespan begins."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        # Opened in this order, closed in reverse; what is yielded is every request's `state`.
        async with (
            open_database(settings, settings.database_pool_size) as database,
            open_database(settings, 1) as probed,
            open_cache(settings) as cache,
        ):
            ready = health.Readiness(probed, cache, newest_revision())
            yield {"settings": settings, "database": database, "cache": cache, "readiness": ready}

    app = FastAPI(
        title=NAME,
        version=settings.app_version or version(NAME),
        lifespan=lifespan,
        exception_handlers=errors.HANDLERS,
        responses={"default": errors.RESPONSE},
        redirect_slashes=False,
        redoc_url=None,
    )
    # Not by routers, each of which FastAPI matches twice: probes come every few seconds.
    app.get("/health")(health.health)
    app.get("/ready", responses={503: {"model": health.Ready}})(health.ready)
    app.get("/version")(health.running_version)
    app.get("/metrics", response_class=PlainTextResponse)(metrics.metrics)
    app.include_router(items.router)  # example
    app.add_middleware(Observe, max_body_size=settings.max_body_size)
    # The last one added is the first to see a request, and the last to see its answer.
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins.replace(" ", "").split(","),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["ETag", "Location", "X-Request-ID"],
        )
    return app


def application() -> FastAPI:
    """The application as servers start it: settings from the environment, or exit code 2."""
    settings = load_settings()
    logging.getLogger().setLevel(settings.log_level)
    return create_app(settings)
