"""Streams end completely when the server stops, and a cut stream is visible in the access log."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent

from fastapi_k8s.dependencies import DrainingDep
from fastapi_k8s.main import create_app
from tests.conftest import LogLines, MakeSettings, Serve


def access_lines(log_lines: LogLines) -> list[dict[str, Any]]:
    return [line for line in log_lines() if line["message"] == "request"]


@pytest.fixture
def app(make_settings: MakeSettings) -> FastAPI:
    """The application with a stream that ends at the drain, and others."""
    app = create_app(make_settings())

    @app.get("/events", response_class=EventSourceResponse)
    async def stream_until_the_drain(draining: DrainingDep) -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(raw_data="first")
        await draining.wait()
        yield ServerSentEvent(raw_data="last")

    @app.get("/endless", response_class=EventSourceResponse)
    async def stream_without_end() -> AsyncIterator[int]:
        while True:
            yield 1
            await asyncio.sleep(0.01)

    @app.get("/failing", response_class=EventSourceResponse)
    async def stream_and_fail(events: int) -> AsyncIterator[int]:
        for number in range(events):
            yield number
        await asyncio.sleep(0.01)  # until then, the response waits for the next event
        raise ValueError("hidden")

    @app.get("/failing-in-a-thread", response_class=EventSourceResponse)
    def stream_and_fail_in_a_thread(events: int) -> Iterator[int]:
        yield from range(events)
        raise ValueError("hidden")

    return app


async def test_a_stream_ends_completely_when_uvicorn_stops(app: FastAPI, serve: Serve) -> None:
    """As `make run` does at a reload and at Ctrl-C, without a worker that drains."""
    async with httpx.AsyncClient() as stream_client:
        async with serve(app) as client:
            request = stream_client.build_request("GET", client.base_url.join("/events"))
            response = await stream_client.send(request, stream=True)
        assert await response.aread() == b"data: first\n\ndata: last\n\n"


async def test_a_response_is_complete_when_an_application_without_the_event_stops(
    serve: Serve,
) -> None:
    app = FastAPI()

    @app.get("/numbers", response_class=EventSourceResponse)
    async def stream_numbers() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.5)
        yield 2

    async with httpx.AsyncClient() as stream_client:
        async with serve(app) as client:
            request = stream_client.build_request("GET", client.base_url.join("/numbers"))
            response = await stream_client.send(request, stream=True)
        assert await response.aread() == b"data: 1\n\ndata: 2\n\n"


async def test_the_access_log_line_of_a_stream_contains_that_the_client_has_cut_it(
    app: FastAPI, serve: Serve, log_lines: LogLines
) -> None:
    """The server notices with one of the next events that the connection is closed."""
    async with serve(app) as client:
        async with client.stream("GET", "/endless") as response:
            await anext(response.aiter_raw())
        async with asyncio.timeout(20):
            while not (lines := access_lines(log_lines)):
                await asyncio.sleep(0.01)
    [line] = lines
    assert (line["status"], line["cut_by"]) == (200, "client")


@pytest.mark.parametrize("path", ["/failing", "/failing-in-a-thread"])
@pytest.mark.parametrize("events", [0, 1, 3])
async def test_the_connection_closes_without_the_last_chunk_if_a_generator_of_events_fails(
    app: FastAPI, serve: Serve, log_lines: LogLines, path: str, events: int
) -> None:
    """FastAPI alone ends the response as if it were complete."""
    async with serve(app) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await client.get(path, params={"events": events})
        [line] = access_lines(log_lines)
        assert (line["status"], line["cut_by"]) == (200, "error")
        [error_line] = [line for line in log_lines() if line["level"] == "ERROR"]
        assert "ValueError: hidden" in "".join(error_line["exception"]["stack"])
        assert error_line["request_id"] == line["request_id"]


async def test_a_complete_response_is_not_cut(
    client: httpx.AsyncClient, log_lines: LogLines
) -> None:
    await client.get("/version")
    [line] = access_lines(log_lines)
    assert "cut_by" not in line
