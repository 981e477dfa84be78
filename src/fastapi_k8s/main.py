"""The application: what the lifespan yields, the routes, and the middleware around them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute

from . import NAME, auth, health, swagger_ui
from .cache import open_cache
from .database import open_database
from .deadline import DeadlineMiddleware
from .dependencies import LifespanState
from .errors import ErrorMiddleware, ProblemCORSMiddleware, add_exception_handlers
from .items import routes as items  # example
from .migrations import newest_revision
from .observability import metrics
from .observability.middleware import ObservabilityMiddleware
from .observability.process_metrics import sample_process
from .observability.telemetry import TELEMETRY_OFF, Telemetry, load_telemetry
from .openapi import DEFAULT_ERROR_RESPONSE, RETRY_AFTER_HEADER, complete_openapi
from .readiness import Readiness, ReadinessReport
from .resource_metrics import sample_cache, sample_pool
from .settings import Settings, load_settings


def create_app(settings: Settings, telemetry: Telemetry = TELEMETRY_OFF) -> FastAPI:
    """The application with these settings. It opens no connection before its lifespan begins."""
    needed_revision = newest_revision()
    token_verifier = auth.create_token_verifier(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[LifespanState]:
        metrics.set_build_info(app.version, settings.git_sha)
        # Closed in reverse order: a write that commits at shutdown still needs the cache.
        async with (
            telemetry.export(),
            open_cache(settings) as cache,
            open_database(settings, settings.database_pool_size) as database,
            open_database(settings, pool_size=1) as readiness_database,
            metrics.sampling(
                metrics.sample_active_requests,
                sample_process,
                partial(sample_pool, database.pool),
                partial(sample_cache, cache),
            ),
            auth.refreshing_signing_keys(token_verifier),
        ):
            readiness = Readiness(readiness_database, cache, needed_revision)
            yield LifespanState(
                settings=settings,
                database=database,
                cache=cache,
                readiness=readiness,
                draining=asyncio.Event(),
                token_verifier=token_verifier,
            )

    app = FastAPI(
        title=NAME,
        version=app_version(settings),
        lifespan=lifespan,
        responses=DEFAULT_ERROR_RESPONSE,
        generate_unique_id_function=operation_id,
        redirect_slashes=False,
        openapi_url="/openapi.json" if settings.api_docs else None,
        docs_url=None,
        redoc_url=None,
        telemetry=telemetry.config,
    )
    add_routes(app, settings)
    add_exception_handlers(app)
    add_middleware(app, settings, telemetry)
    complete_openapi(app)
    return app


def add_routes(app: FastAPI, settings: Settings) -> None:
    """Add the path operations, in the order in which FastAPI tries them.

    The first four are added to the application directly, and before the body limit is set: they
    read no body. Both save 12 to 15 µs a request (docs/decisions/0016-routes-and-body-limit.md).
    """
    app.add_api_route("/health", health.get_health, tags=["health"])
    app.add_api_route(
        "/ready",
        health.get_ready,
        responses={503: {"model": ReadinessReport, "headers": {"Retry-After": RETRY_AFTER_HEADER}}},
        tags=["health"],
    )
    app.add_api_route("/version", health.get_version, tags=["health"])
    app.add_api_route(
        "/metrics",
        metrics.get_metrics,
        response_class=PlainTextResponse,
        tags=["metrics"],
    )
    # The limit applies to the routes that are added after it. `FastAPI(max_body_size=...)` is
    # enforced outside all middleware: a 413 would have no request id, log line or problem details.
    app.router.max_body_size = settings.max_body_size
    app.include_router(auth.configure_router(items.router, settings))  # example
    if settings.api_docs:
        swagger_ui.add_routes(app)


def add_middleware(app: FastAPI, settings: Settings, telemetry: Telemetry) -> None:
    """Wrap the routes. The middleware that is added last is the outermost.

    CORS is outside of the errors, so that browsers can read a 500, and inside of the observability,
    so that preflight requests are logged.
    """
    app.add_middleware(DeadlineMiddleware, timeout_seconds=settings.request_timeout)
    app.add_middleware(ErrorMiddleware)
    if settings.cors_origins:
        app.add_middleware(
            ProblemCORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[
                "ETag",
                "Location",
                "Retry-After",
                "WWW-Authenticate",
                "X-Request-ID",
            ],
        )
    app.add_middleware(ObservabilityMiddleware, routes=app.routes, has_traces=telemetry.is_on)


def app_version(settings: Settings) -> str:
    """APP_VERSION, or else the version of the package."""
    return settings.app_version or version(NAME)


def operation_id(route: APIRoute) -> str:
    """The OpenAPI operation id: the name of the function, used by generated clients."""
    return route.name


def create_app_from_environment() -> FastAPI:
    """The entry point for Gunicorn and Uvicorn. Exits with code 2 if a setting is invalid."""
    settings = load_settings()
    logging.getLogger().setLevel(settings.log_level)
    return create_app(settings, load_telemetry(app_version(settings)))
