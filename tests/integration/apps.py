"""Applications that Gunicorn serves in tests, instead of the application itself."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from fastapi_k8s import main


def create_app_with_test_routes() -> FastAPI:
    """The application with a route for the process id of the worker, and a slow route."""
    app = main.create_app_from_environment()

    @app.get("/process")
    async def get_process() -> int:
        return os.getpid()

    @app.get("/slow/{seconds}")
    async def get_slowly(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    return app


def create_app_without_settings() -> FastAPI:
    """An application whose lifespan has no state, as `make bench` serves some."""
    app = FastAPI()

    @app.get("/health")
    async def get_health() -> str:
        return "ok"

    return app


def create_app_that_fails_to_start() -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no start")
        yield

    return FastAPI(lifespan=lifespan)
