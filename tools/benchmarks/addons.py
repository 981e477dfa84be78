"""The bare application with the usual add-ons, configured as their READMEs show.

They do what the service does itself: metrics, a request id and an access log line in JSON.
"""

import logging.config
from collections.abc import Awaitable, Callable
from time import perf_counter

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI, Request, Response
from prometheus_fastapi_instrumentator import Instrumentator

from . import bare

logger = logging.getLogger("access")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"correlation_id": {"()": "asgi_correlation_id.CorrelationIdFilter"}},
    "formatters": {
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s %(correlation_id)s",
        }
    },
    "handlers": {
        "stdout": {
            "class": "logging.StreamHandler",
            "filters": ["correlation_id"],
            "formatter": "json",
            "stream": "ext://sys.stdout",
        }
    },
    "root": {"level": "INFO", "handlers": ["stdout"]},
}


def create_app() -> FastAPI:
    """The bare application with all add-ons. It configures logging."""
    logging.config.dictConfig(LOGGING)
    app = bare.create_app()
    app.middleware("http")(log_request)
    app.add_middleware(CorrelationIdMiddleware)
    Instrumentator().instrument(app).expose(app)
    return app


async def log_request(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Write an access log line with the fields of the service's own."""
    start_time = perf_counter()
    response = await call_next(request)
    fields = {
        "method": request.method,
        "path": request.url.path,
        "status": response.status_code,
        "duration_ms": round((perf_counter() - start_time) * 1000, 2),
        "client": request.client.host if request.client else None,
    }
    logger.info("request", extra=fields)
    return response
