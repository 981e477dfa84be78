"""Applications that tests let Gunicorn run in the place of the service."""

import asyncio
import os

from fastapi import FastAPI

from fastapi_k8s import main


def with_probes() -> FastAPI:
    """The service, and routes that tell the worker's process and that take their time."""
    app = main.application()

    @app.get("/process")
    async def process() -> int:
        return os.getpid()

    @app.get("/slow/{seconds}")
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    return app
