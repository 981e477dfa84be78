"""Applications that tests let Gunicorn run in the place of the service."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from fastapi_k8s import main


def with_probes() -> FastAPI:
    """The service, and routes that tell the worker's process and that take their time."""
    app = main.create_app_from_environment()

    @app.get("/process")
    async def process() -> int:
        return os.getpid()

    @app.get("/slow/{seconds}")
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    return app


def bare() -> FastAPI:
    """An create_app_from_environment that knows nothing of the service's settings."""
    app = FastAPI()

    @app.get("/health")
    async def health() -> str:
        return "ok"

    return app


def failing() -> FastAPI:
    """An create_app_from_environment that does not start."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if app.routes:
            raise RuntimeError("no start")
        yield

    return FastAPI(lifespan=lifespan)
