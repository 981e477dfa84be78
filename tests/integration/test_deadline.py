"""The deadline: a request whose response has not begun in time is cancelled, and gets 503."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse

from fastapi_k8s import deadline
from fastapi_k8s.database import open_database
from fastapi_k8s.dependencies import DatabaseDep
from fastapi_k8s.main import create_app
from fastapi_k8s.settings import Settings
from tests.conftest import LogLines, MakeSettings, Serve

TIMEOUT_SECONDS = 1.0
COUNT_SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


def create_slow_app(settings: Settings) -> FastAPI:
    """The application with routes that take longer than its deadline."""
    app = create_app(settings)

    @app.get("/async")
    async def wait() -> None:
        await asyncio.sleep(60)

    @app.get("/thread")
    def wait_in_thread() -> None:
        time.sleep(2)

    @app.get("/stubborn")
    async def continue_after_cancellation() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "done"

    @app.post("/statements")
    async def run_statements(database: DatabaseDep) -> None:
        async with database.transaction() as connection:
            for _ in range(100):
                await connection.execute("SELECT pg_sleep(0.2)")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "a"
            await asyncio.sleep(1.5 * TIMEOUT_SECONDS)
            yield "b"

        return StreamingResponse(parts())

    @app.get("/events", response_class=EventSourceResponse)
    async def stream_events() -> AsyncIterator[str]:
        await asyncio.sleep(1.5 * TIMEOUT_SECONDS)
        yield "late"

    @app.post("/body")
    async def read_body(request: Request) -> int:
        return len(await request.body())

    @app.post("/parts")
    async def read_body_slowly(request: Request) -> int:
        size = 0
        async for part in request.stream():
            size += len(part)
            await asyncio.sleep(0.5 * TIMEOUT_SECONDS)
        return size

    @app.get("/connected")
    async def poll_while_connected(request: Request) -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(0.05)

    @app.get("/disconnect")
    async def wait_for_disconnect(request: Request) -> None:
        while not await request.is_disconnected():
            await request.receive()

    return app


@pytest.fixture
async def service(make_settings: MakeSettings, serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the slow application."""
    settings = make_settings(request_timeout=TIMEOUT_SECONDS)
    async with serve(create_slow_app(settings)) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/async"),
        ("GET", "/thread"),
        ("GET", "/stubborn"),
        ("POST", "/statements"),
        ("GET", "/connected"),
        ("GET", "/disconnect"),
    ],
)
async def test_a_late_request_gets_503_and_may_be_retried(
    service: httpx.AsyncClient, log_lines: LogLines, method: str, path: str
) -> None:
    async with asyncio.timeout(10):
        response = await service.request(method, path)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "The request took too long."
    [line] = [line for line in log_lines() if line["message"] == "request"]
    assert line["status"] == 503
    assert line["request_id"] == response.json()["request_id"]
    assert line["duration_ms"] >= TIMEOUT_SECONDS * 1000


async def test_a_request_that_continues_after_its_cancellation_is_logged(
    service: httpx.AsyncClient, log_lines: LogLines
) -> None:
    response = await service.get("/stubborn")
    assert response.status_code == 503
    assert (await service.get("/health")).status_code == 200  # on the same connection
    [line] = [line for line in log_lines() if line["level"] == "ERROR"]
    assert line["message"] == "the request continued after its deadline, and failed"
    assert line["request_id"] == response.json()["request_id"]


async def test_the_response_does_not_wait_for_the_cleanup_of_the_request(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings(request_timeout=TIMEOUT_SECONDS))
    cleanup_may_end = asyncio.Event()

    @app.get("/cleanup")
    async def clean_up() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await cleanup_may_end.wait()

    async with serve(app) as client:
        async with asyncio.timeout(10):
            response = await client.get("/cleanup")
        cleanup_may_end.set()
    assert response.status_code == 503


async def test_a_late_request_runs_no_further_statement(
    service: httpx.AsyncClient, make_settings: MakeSettings
) -> None:
    assert (await service.post("/statements")).status_code == 503
    async with (
        open_database(make_settings(), pool_size=1) as database,
        database.connection() as connection,
        asyncio.timeout(10),
    ):
        while await connection.fetchval(COUNT_SLEEPING) > 0:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # a further statement would sleep for 0.2 s
        assert await connection.fetchval(COUNT_SLEEPING) == 0


async def test_a_response_that_has_begun_is_not_cut(service: httpx.AsyncClient) -> None:
    response = await service.get("/stream")
    assert (response.status_code, response.text) == (200, "ab")


async def test_the_first_server_sent_event_may_be_late(service: httpx.AsyncClient) -> None:
    """The head of the response is sent before it."""
    response = await service.get("/events")
    assert (response.status_code, response.text) == (200, 'data: "late"\n\n')


async def test_the_time_in_which_the_client_sends_the_body_does_not_count(
    service: httpx.AsyncClient,
) -> None:
    async def slow_body() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(1.5 * TIMEOUT_SECONDS)
        yield b"b"

    response = await service.post("/body", content=slow_body())
    assert (response.status_code, response.json()) == (200, 2)


async def test_the_time_between_two_parts_of_the_body_counts(service: httpx.AsyncClient) -> None:
    """Otherwise a request that reads its body in parts would have a deadline for each of them."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"a"
            await asyncio.sleep(0.1 * TIMEOUT_SECONDS)

    response = await service.post("/parts", content=parts())
    assert response.status_code == 503


async def test_requests_after_a_pause_have_a_deadline_too(service: httpx.AsyncClient) -> None:
    """The timer stops while there is no request."""
    assert (await service.get("/health")).status_code == 200
    await asyncio.sleep(3 * deadline.CHECK_INTERVAL_SECONDS)
    assert (await service.get("/async")).status_code == 503
