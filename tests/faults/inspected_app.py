"""The application with routes that show what a worker holds, and that take time or memory."""

import asyncio
import gc

from fastapi import FastAPI
from fastapi.responses import Response

from fastapi_k8s.dependencies import CacheDep, DatabaseDep
from fastapi_k8s.server.connections import HttpProtocolFactory
from fastapi_k8s.server.worker import DrainingWorker
from tests.integration.apps import create_app_with_test_routes

LARGE_RESPONSE = bytes(10_000_000)
"""More than the buffers of the sockets hold."""


def create_inspected_app() -> FastAPI:
    """The application with further routes."""
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

    @app.get("/query/{seconds}")
    async def query(seconds: float, database: DatabaseDep) -> None:
        async with database.connection() as connection:
            await connection.execute("SELECT pg_sleep($1)", seconds)

    @app.get("/transaction/{seconds}")
    async def query_in_transaction(seconds: float, database: DatabaseDep) -> None:
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_sleep($1)", seconds)

    @app.get("/cached/{key}")
    async def read_through_cache(key: str, cache: CacheDep) -> str:
        async def load() -> bytes:
            return key.encode()

        return (await cache.get_or_load(key, b"key", load)).decode()

    @app.get("/large-response")
    async def get_large_response() -> Response:
        return Response(LARGE_RESPONSE)

    return app
