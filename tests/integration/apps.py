"""Applications that Gunicorn serves in tests, instead of the application itself."""

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import asyncpg
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_k8s import main
from fastapi_k8s.auth import require_scope
from fastapi_k8s.caller import Caller
from fastapi_k8s.dependencies import CacheDep, DatabaseDep, DrainingDep

UPLOAD_SIZE = 3_000_000
"""A limit above MAX_BODY_SIZE, in bytes."""


class MiddlewareWithProcess:
    """Adds the id of the process that has built the middleware to the scope of each request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._process = os.getpid()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["process_of_middleware"] = self._process
        await self._app(scope, receive, send)


def create_app_with_test_routes() -> FastAPI:
    """The application with routes that show or disturb the process that serves them."""
    app = main.create_app_from_environment()
    is_busy = False

    app.add_middleware(MiddlewareWithProcess)

    @app.get("/process-of-middleware")
    async def get_process_of_middleware(request: Request) -> int:
        return int(request.scope["process_of_middleware"])

    @app.get("/garbage-collection")
    async def get_garbage_collection() -> dict[str, int]:
        return {"threshold": gc.get_threshold()[0], "frozen_objects": gc.get_freeze_count()}

    @app.get("/process")
    async def get_process() -> int:
        return os.getpid()

    @app.get("/subject")
    async def get_subject(caller: Annotated[Caller, require_scope()]) -> str:
        return caller.subject

    @app.get("/is-busy")
    async def get_is_busy() -> bool:
        return is_busy

    @app.get("/slow/{seconds}")
    async def get_slowly(seconds: float) -> str:
        nonlocal is_busy
        is_busy = True
        await asyncio.sleep(seconds)
        return "done"

    @app.get("/slow-query")
    async def run_slow_query(database: DatabaseDep) -> None:
        nonlocal is_busy
        async with database.connection() as connection:
            is_busy = True
            await connection.execute("SELECT pg_sleep(60)")

    @app.get("/values/{value}")
    async def read_through_cache(value: str, cache: CacheDep, database: DatabaseDep) -> bytes:
        async def load() -> bytes:
            async with database.connection() as connection:
                return str(await connection.fetchval("SELECT $1::text", value)).encode()

        return await cache.get_or_load(f"cached:{value}", b"test", load)

    @app.put("/values/{value}")
    async def write_through_cache(value: str, cache: CacheDep, database: DatabaseDep) -> None:
        invalidate = partial(cache.invalidate, f"cached:{value}")
        async with database.transaction(after_commit=invalidate) as connection:
            await connection.execute("SELECT $1::text", value)

    @app.get("/invalid/{value}")
    async def execute_invalid_statement(value: str, database: DatabaseDep) -> str:
        async with database.connection() as connection:
            try:
                await connection.execute("SELECT $1::text::integer", value)
            except asyncpg.DataError as error:
                return str(error)
        return ""

    @app.get("/slow-stream")
    async def stream_slowly() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.sleep(60)

        return StreamingResponse(chunks())

    @app.get("/events", response_class=EventSourceResponse)
    async def stream_until_the_drain(draining: DrainingDep) -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(raw_data="first")
        await draining.wait()
        yield ServerSentEvent(raw_data="last")

    @app.get("/background-task")
    async def start_background_task(tasks: BackgroundTasks) -> str:
        tasks.add_task(asyncio.sleep, 60)
        return "accepted"

    @app.get("/background-thread")
    async def start_background_task_in_a_thread(tasks: BackgroundTasks) -> str:
        tasks.add_task(time.sleep, 60)
        return "accepted"

    @app.get("/large")
    async def get_more_than_the_buffers_of_the_sockets(size: int = 50_000_000) -> Response:
        return Response(b"x" * size)

    @app.post("/set-clock-back")
    async def set_clock_back() -> None:
        wall_clock = time.time
        time.time = lambda: wall_clock() - 3600

    @app.post("/echo", max_body_size=UPLOAD_SIZE)
    async def echo(request: Request) -> dict[str, Any]:
        body = await request.body()
        headers = [(name.decode(), value.decode()) for name, value in request.scope["headers"]]
        return {"headers": headers, "url": str(request.url), "body": body.decode()}

    @app.post("/unread")
    async def ignore_body() -> str:
        return "done"

    return app


def create_app_without_settings() -> FastAPI:
    """An application whose lifespan has no state, as `make bench` serves some."""
    app = FastAPI()

    @app.get("/health")
    async def get_health() -> str:
        return "ok"

    return app


def create_wrapped_app() -> ASGIApp:
    """An application that is not an instance of FastAPI or Starlette, because it is wrapped."""
    return MiddlewareWithProcess(create_app_without_settings())


def create_app_that_does_not_stop() -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.sleep(60)

    app = FastAPI(lifespan=lifespan)
    app.include_router(create_app_without_settings().router)
    return app


def create_app_that_fails_to_start() -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no start")
        yield

    return FastAPI(lifespan=lifespan)
