"""The application with routes that show what a worker holds, and that take time or memory."""

import asyncio
import gc

from fastapi import FastAPI
from fastapi.responses import Response

from fastapi_k8s.dependencies import DatabaseDep
from fastapi_k8s.server.connections import HttpProtocolFactory
from fastapi_k8s.server.worker import DrainingWorker
from tests.integration.apps import create_app_with_test_routes

LARGE_RESPONSE = bytes(10_000_000)
"""More than the buffers of the sockets hold."""


def create_inspected_app() -> FastAPI:
    """The application with `/internals`, `/query` and `/large-response`."""
    app = create_app_with_test_routes()

    @app.get("/internals")
    async def count_internals() -> dict[str, int]:
        factory = DrainingWorker.CONFIG_KWARGS["http"]
        assert isinstance(factory, HttpProtocolFactory)
        gc.collect()
        return {
            "connections": len(factory.connections),
            "held_bytes": factory.held_bytes,
            "tasks": len(asyncio.all_tasks()),
            "objects": len(gc.get_objects()),
        }

    @app.get("/query")
    async def query_for_a_while(database: DatabaseDep) -> None:
        async with database.connection() as connection:
            await connection.execute("SELECT pg_sleep(0.05)")

    @app.get("/large-response")
    async def get_large_response() -> Response:
        return Response(LARGE_RESPONSE)

    return app
