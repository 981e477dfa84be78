"""What the HTTP protocol keeps of its connections, and how much of their requests."""

import asyncio
import gc
import re
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from fastapi_k8s.main import create_app
from fastapi_k8s.server import connections as server_connections
from fastapi_k8s.server import http_protocol
from fastapi_k8s.server.connections import HttpProtocolFactory
from fastapi_k8s.server.http_protocol import StrictHttpProtocol
from fastapi_k8s.server.request_head import HttpLimits
from tests.conftest import LogLines, MakeSettings, Serve

MAX_BODY_SIZE = 200_000
GET = b"GET /health HTTP/1.1\r\nHost: api\r\n\r\n"
BODY_SIZE_BUT_ONE = MAX_BODY_SIZE - 1
SLOW_UPLOAD = (
    b"POST /bodies HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\n\r\n" % MAX_BODY_SIZE
) + b"x" * BODY_SIZE_BUT_ONE
WEBSOCKET_OFFER = b"host: api\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
ADDRESS_IN_IPV6 = ("::ffff:127.0.0.1", 1234)
RESPONSE_SIZE = 20_000_000
"""More than the buffers of the two sockets hold."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with 0 seconds: to close the socket sends RST instead of FIN."""


@pytest.fixture
def factory() -> HttpProtocolFactory:
    return HttpProtocolFactory()


@pytest.fixture
def app(make_settings: MakeSettings) -> FastAPI:
    """The application with a route that reads a body, and one whose response the test releases."""
    app = create_app(make_settings(max_body_size=MAX_BODY_SIZE))
    app.state.released = asyncio.Event()

    @app.post("/bodies")
    async def read_body(request: Request) -> int:
        return len(await request.body())

    @app.get("/piece")
    async def get_piece() -> Response:
        return Response(b"x" * RESPONSE_SIZE)

    @app.get("/stream")
    async def get_stream() -> StreamingResponse:
        async def stream() -> AsyncIterator[bytes]:
            for _ in range(RESPONSE_SIZE // 1_000_000):
                yield b"x" * 1_000_000

        return StreamingResponse(stream())

    @app.post("/interrupted")
    async def get_interrupted_stream() -> StreamingResponse:
        async def stream() -> AsyncIterator[bytes]:
            yield b"first"
            raise RuntimeError("interrupted")

        return StreamingResponse(stream())

    @app.get("/endless")
    async def get_endless_stream() -> StreamingResponse:
        async def stream() -> AsyncIterator[bytes]:
            while True:
                yield b"event"
                await asyncio.sleep(0.01)

        return StreamingResponse(stream())

    @app.get("/empty", status_code=204)
    async def get_nothing() -> None:
        pass

    @app.get("/released")
    async def wait_for_release() -> str:
        await app.state.released.wait()
        return "released"

    return app


@pytest.fixture
async def client(
    app: FastAPI, factory: HttpProtocolFactory, serve: Serve
) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(app, http=factory) as client:
        yield client


@asynccontextmanager
async def connected(
    client: httpx.AsyncClient,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await connect(client)
    try:
        yield reader, writer
    finally:
        writer.close()


async def connect(
    client: httpx.AsyncClient,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", urlsplit(str(client.base_url)).port)


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def count_objects(class_: type) -> int:
    gc.collect()
    return sum(isinstance(each, class_) for each in gc.get_objects())


async def test_nothing_outlives_a_connection_that_was_reset(
    client: httpx.AsyncClient, factory: HttpProtocolFactory
) -> None:
    """Load balancers and health checkers close like this, for each probe."""
    await client.get("/health")
    protocols = count_objects(StrictHttpProtocol)
    requests = count_objects(RequestResponseCycle)
    connections = len(factory.connections)
    for _ in range(50):
        reader, writer = await connect(client)
        writer.write(GET)
        assert await reader.readuntil(b"\r\n\r\n")
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        writer.close()
    await wait_until(lambda: len(factory.connections) == connections)
    # The event loop may reference the last connection a little longer.
    await wait_until(lambda: count_objects(StrictHttpProtocol) <= protocols)
    await wait_until(lambda: count_objects(RequestResponseCycle) <= requests)
    assert factory.held_bytes == 0


async def test_a_half_closed_connection_is_removed_after_its_response(
    client: httpx.AsyncClient, app: FastAPI, factory: HttpProtocolFactory
) -> None:
    async with connected(client) as (reader, writer):
        writer.write(b"GET /released HTTP/1.1\r\nHost: api\r\n\r\n")
        writer.write_eof()
        await wait_until(lambda: any(each.has_ended for each in factory.connections))
        app.state.released.set()
        assert (await reader.read()).endswith(b'"released"')
        await wait_until(lambda: not factory.connections)
    assert factory.held_bytes == 0


@pytest.mark.usefixtures("log_lines")
async def test_a_connection_with_an_interrupted_response_is_removed_when_the_client_closes_it(
    client: httpx.AsyncClient, factory: HttpProtocolFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "LINGER_SECONDS", 3600)
    async with connected(client) as (reader, writer):
        writer.write(b"POST /interrupted HTTP/1.1\r\nHost: api\r\nContent-Length: 9\r\n\r\nbody")
        assert (await reader.read()).endswith(b"5\r\nfirst\r\n")
    await wait_until(lambda: not factory.connections)
    assert factory.held_bytes == 0


async def test_a_pipeline_that_is_reset_is_not_logged_as_an_error(
    client: httpx.AsyncClient, app: FastAPI, factory: HttpProtocolFactory, log_lines: LogLines
) -> None:
    """The second request is in progress, and the third one waits."""
    reader, writer = await connect(client)
    writer.write(GET + b"GET /released HTTP/1.1\r\nHost: api\r\n\r\n" * 2)
    await reader.readuntil(b'{"status":"ok"}')
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.close()
    await wait_until(lambda: not factory.connections)
    app.state.released.set()
    await wait_until(lambda: any(line.get("path") == "/released" for line in log_lines()))
    await asyncio.sleep(0)  # the server would log the error of the task
    assert {line["level"] for line in log_lines()} == {"INFO"}


async def test_an_endless_response_ends_when_the_client_closes_the_connection(
    client: httpx.AsyncClient, factory: HttpProtocolFactory
) -> None:
    async with connected(client) as (reader, writer):
        writer.write(b"GET /endless HTTP/1.1\r\nHost: api\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        requests = count_objects(RequestResponseCycle)
    await wait_until(lambda: not factory.connections)
    await wait_until(lambda: count_objects(RequestResponseCycle) < requests)


@pytest.mark.parametrize("next_request", [b"", GET], ids=["alone", "in a pipeline"])
async def test_the_response_to_head_of_an_endless_stream_closes_the_connection(
    client: httpx.AsyncClient,
    factory: HttpProtocolFactory,
    log_lines: LogLines,
    next_request: bytes,
) -> None:
    """The next request would wait for the end of the stream, which nobody receives."""
    async with connected(client) as (reader, writer):
        writer.write(b"HEAD /endless HTTP/1.1\r\nHost: api\r\n\r\n" + next_request)
        head = await reader.read()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in head
    assert head.partition(b"\r\n\r\n")[2] == b""
    await wait_until(lambda: not factory.connections)
    await wait_until(lambda: any("path" in line for line in log_lines()))
    [line] = log_lines()
    assert (line["message"], line["method"], line["status"]) == ("request", "HEAD", 200)
    assert "cut_by" not in line
    assert factory.held_bytes == 0


async def test_other_responses_to_head_keep_the_connection(client: httpx.AsyncClient) -> None:
    """Those with Content-Length, and those that have no body for any method."""
    async with connected(client) as (reader, writer):
        for path in (b"/health", b"/piece", b"/empty", b"/missing"):
            writer.write(b"HEAD %s HTTP/1.1\r\nHost: api\r\n\r\n" % path)
            assert b"connection: close" not in await reader.readuntil(b"\r\n\r\n")
        writer.write(GET)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")


async def test_a_stream_ends_with_the_connection_in_http_1_0(client: httpx.AsyncClient) -> None:
    """HTTP/1.0 has no chunks (RFC 9112, section 6.1)."""
    async with connected(client) as (reader, writer):
        writer.write(b"GET /stream HTTP/1.0\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"\r\nconnection: close\r\n" in head + b"\r\n"
    assert body == b"x" * RESPONSE_SIZE


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (b"GET /health HTTP/1.0\r\n\r\n", b'{"status":"ok"}'),
        (b"GET /empty HTTP/1.0\r\n\r\n", b""),
        (b"HEAD /stream HTTP/1.0\r\n\r\n", b""),
    ],
)
async def test_other_responses_are_the_same_in_http_1_0(
    client: httpx.AsyncClient, request_: bytes, body: bytes
) -> None:
    async with connected(client) as (reader, writer):
        writer.write(request_)
        received = await reader.read()
    assert received.startswith(b"HTTP/1.1 20")
    assert b"transfer-encoding" not in received
    assert received.partition(b"\r\n\r\n")[2] == body


async def test_the_bodies_of_all_requests_together_are_limited(
    client: httpx.AsyncClient, factory: HttpProtocolFactory
) -> None:
    """Small requests are served meanwhile, and large ones as soon as the slow ones have ended."""
    uploads = 2 * http_protocol.HELD_BODIES
    limit = http_protocol.HELD_BODIES * MAX_BODY_SIZE
    connections = [await connect(client) for _ in range(uploads)]
    for _, writer in connections:
        writer.write(SLOW_UPLOAD)
    responses = await read_available(connections)
    assert len(responses) >= uploads - http_protocol.HELD_BODIES
    for response in responses:
        assert response.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in response
        assert b"connection: close\r\n" in response
        assert b"content-type: application/problem+json\r\n" in response
    assert 0 < factory.held_bytes < limit + uploads * http_protocol.SMALL_REQUEST_BYTES
    small = await client.post("/bodies", content=b"x" * 1000)
    assert (small.status_code, small.json()) == (200, 1000)
    for _, writer in connections:
        writer.close()
    await wait_until(lambda: len(factory.connections) == 1)
    large = await client.post("/bodies", content=b"x" * MAX_BODY_SIZE)
    assert (large.status_code, large.json()) == (200, MAX_BODY_SIZE)
    assert factory.held_bytes == 0


async def read_available(
    connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
) -> list[bytes]:
    """The responses of those that get one. The others wait for the rest of their body."""
    tasks = [asyncio.create_task(reader.read()) for reader, _ in connections]
    done: set[asyncio.Task[bytes]] = set()
    async with asyncio.timeout(20):
        while len(done) < http_protocol.HELD_BODIES:
            done, _ = await asyncio.wait(tasks, timeout=0.1)
    for task in tasks:
        task.cancel()
    return [task.result() for task in done]


async def test_a_single_byte_counts_with_the_memory_of_its_chunk(
    client: httpx.AsyncClient, factory: HttpProtocolFactory
) -> None:
    async with connected(client) as (_, writer):
        writer.write(b"POST /bodies HTTP/1.1\r\nHost: api\r\nContent-Length: 1000\r\n\r\n")
        await wait_until(lambda: factory.held_bytes > 0)
        held_bytes = factory.held_bytes
        writer.write(b"x")
        await wait_until(lambda: factory.held_bytes > held_bytes)
        assert factory.held_bytes - held_bytes > http_protocol.CHUNK_OVERHEAD_BYTES


async def test_the_requests_of_a_pipeline_are_limited(
    client: httpx.AsyncClient, app: FastAPI, factory: HttpProtocolFactory
) -> None:
    """A request that waits takes more memory than its bytes on the wire."""
    async with connected(client) as (reader, writer):
        writer.write(b"GET /released HTTP/1.1\r\nHost: api\r\n\r\n" + GET * 5000)
        await wait_until(lambda: any(each.is_discarding for each in factory.connections))
        app.state.released.set()
        responses = await reader.read()
    limit = http_protocol.HELD_BODIES * MAX_BODY_SIZE / http_protocol.QUEUED_REQUEST_BYTES
    assert 1 < responses.count(b"HTTP/1.1 200 ") <= limit + 1


async def test_a_client_that_does_not_close_after_an_early_response_is_cut_off(
    client: httpx.AsyncClient, factory: HttpProtocolFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "LINGER_SECONDS", 0)
    async with connected(client) as (reader, writer):
        writer.write(b"POST /bodies HTTP/1.1\r\nHost: api\r\nContent-Length: 1000000\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
        await wait_until(lambda: not factory.connections)


async def test_a_body_that_the_server_does_not_read_does_not_time_out(
    app: FastAPI, factory: HttpProtocolFactory, serve: Serve, make_settings: MakeSettings
) -> None:
    """The server pauses a client that sends faster than the application reads."""
    app = create_app(make_settings(request_read_timeout=1))
    is_reading = asyncio.Event()

    @app.post("/slow")
    async def read_slowly(request: Request) -> int:
        await is_reading.wait()
        return len(await request.body())

    body = b"x" * 1_000_000
    async with serve(app, http=factory) as client, asyncio.TaskGroup() as tasks:
        response = tasks.create_task(client.post("/slow", content=body))
        await wait_until(lambda: factory.elapsed_seconds >= 3)
        is_reading.set()
        assert (await response).json() == len(body)


@pytest.mark.parametrize("is_stream", [False, True], ids=["one piece", "stream"])
async def test_a_client_that_stops_reading_is_cut_off(
    client: httpx.AsyncClient,
    factory: HttpProtocolFactory,
    monkeypatch: pytest.MonkeyPatch,
    is_stream: bool,
) -> None:
    monkeypatch.setattr(http_protocol, "STALL_SECONDS", 1)
    async with connected(client) as (reader, writer):
        path = b"/stream" if is_stream else b"/piece"
        writer.write(b"GET %s HTTP/1.1\r\nHost: api\r\n\r\n" % path)
        await reader.readuntil(b"\r\n\r\n")
        await wait_until(lambda: not factory.connections)


async def test_the_slowest_connection_is_aborted_if_too_much_is_unread(
    client: httpx.AsyncClient,
    factory: HttpProtocolFactory,
    log_lines: LogLines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A single response may exceed the limit."""
    monkeypatch.setattr(server_connections, "UNSENT_BYTES", RESPONSE_SIZE // 2)
    request = b"GET /piece HTTP/1.1\r\nHost: api\r\n\r\n"
    async with connected(client) as (slow, slow_writer), connected(client) as (reader, writer):
        slow_writer.write(request)
        await wait_until(lambda: factory.unsent_bytes == RESPONSE_SIZE)
        assert len(factory.connections) == 2
        writer.write(request)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await slow.readexactly(RESPONSE_SIZE)
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(RESPONSE_SIZE) == b"x" * RESPONSE_SIZE
        # Sent completely, so it does not count any longer.
        async with connected(client) as (other, other_writer):
            other_writer.write(request)
            await other.readuntil(b"\r\n\r\n")
            writer.write(GET)
            await reader.readuntil(b"}")
            await other.readexactly(RESPONSE_SIZE)
    [warning] = [line for line in log_lines() if line["level"] == "WARNING"]
    assert warning["message"] == "too many unread responses, the slowest connection is aborted"
    assert warning["connections"] == 2


async def test_unread_bytes_are_not_counted_after_the_connection(
    client: httpx.AsyncClient, factory: HttpProtocolFactory
) -> None:
    async with connected(client) as (_, writer):
        writer.write(b"GET /piece HTTP/1.1\r\nHost: api\r\n\r\n")
        await wait_until(lambda: factory.unsent_bytes > 0)
        writer.transport.abort()
    await wait_until(lambda: not factory.connections)
    assert (factory.unsent, factory.unsent_bytes) == ({}, 0)


@pytest.mark.parametrize("is_stream", [False, True], ids=["one piece", "stream"])
async def test_a_client_that_reads_slowly_gets_the_response(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, is_stream: bool
) -> None:
    monkeypatch.setattr(http_protocol, "STALL_SECONDS", 2)
    monkeypatch.setattr(http_protocol, "LINGER_SECONDS", 1)
    received = 0
    async with connected(client) as (reader, writer):
        path = b"/stream" if is_stream else b"/piece"
        request = b"GET %s HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n" % path
        writer.write(request)
        while data := await reader.read(1_000_000):
            received += len(data)
            await asyncio.sleep(0.01)
    assert received > RESPONSE_SIZE


async def test_a_request_in_progress_is_not_closed_for_another_connection(
    app: FastAPI, serve: Serve, log_lines: LogLines
) -> None:
    """Connections that wait for a request are, those without a request so far first."""
    factory = HttpProtocolFactory(HttpLimits(connections=2))
    released = b"GET /released HTTP/1.1\r\nHost: api\r\n\r\n"
    async with serve(app, http=factory) as client, connected(client) as (busy, busy_writer):
        busy_writer.write(released)
        await wait_until(lambda: factory.held_bytes > 0)
        async with connected(client) as (idle, idle_writer):
            idle_writer.write(GET)
            await idle.readuntil(b"}")
            assert (await client.get("/health")).status_code == 200
            assert await idle.read() == b""
        async with connected(client) as (other, other_writer):
            other_writer.write(released)
            await wait_until(lambda: len(factory.connections) == 2)
            async with connected(client) as (third, third_writer):
                third_writer.write(GET)
                assert await third.readuntil(b"}")
                app.state.released.set()
                for reader in (busy, other):
                    assert (await reader.readuntil(b'"released"')).startswith(b"HTTP/1.1 200")
    assert "too many connections, the oldest idle one is closed" in {
        line["message"] for line in log_lines()
    }


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"])
async def test_connections_that_arrive_at_the_same_time_do_not_exceed_the_limit(
    app: FastAPI, serve: Serve
) -> None:
    """The event loop of asyncio, unlike uvloop, accepts many connections in one iteration."""
    factory = HttpProtocolFactory(HttpLimits(connections=10))
    async with serve(app, http=factory) as client:
        for _ in range(3):
            connections = await asyncio.gather(*(connect(client) for _ in range(20)))
            await wait_until(lambda: len(factory.connections) <= 10)
            assert (await client.get("/health")).status_code == 200
            for _, writer in connections:
                writer.close()


async def test_without_a_limit_of_open_files_the_limit_of_connections_applies(
    factory: HttpProtocolFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    assert factory.max_connections() == HttpLimits().connections


class EchoProtocol(asyncio.Protocol):
    """Stands for the WebSocket protocol of a library: it sends back what it receives."""

    def __init__(self, **_: object) -> None:
        self.scope: dict[str, object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The transports of uvloop do not inherit from those of asyncio.
        self.transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()


async def test_an_installed_library_for_websockets_gets_the_connection(
    app: FastAPI, factory: HttpProtocolFactory, serve: Serve
) -> None:
    request = b"GET /socket HTTP/1.1\r\n" + WEBSOCKET_OFFER + b"\r\n"
    async with serve(app, http=factory, ws=EchoProtocol) as client:
        async with connected(client) as (reader, writer):
            writer.write(request)
            assert await reader.read() == request
        assert not factory.connections
        assert factory.held_bytes == 0


async def test_the_address_of_a_websocket_is_that_of_its_http_request(
    app: FastAPI, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries use that of the socket, which begins with ::ffff: if the socket is dual-stack."""
    protocols: list[EchoProtocol] = []

    def create_protocol(**_: object) -> EchoProtocol:
        protocol = EchoProtocol()
        protocol.scope = {"client": ADDRESS_IN_IPV6}
        protocols.append(protocol)
        return protocol

    monkeypatch.setattr(httptools_impl, "get_remote_addr", lambda _: ADDRESS_IN_IPV6)
    async with serve(app, ws=create_protocol) as client, connected(client) as (reader, writer):
        writer.write(b"GET /socket HTTP/1.1\r\n" + WEBSOCKET_OFFER + b"\r\n")
        await reader.read()
    [protocol] = protocols
    assert protocol.scope == {"client": ("127.0.0.1", 1234)}


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        pytest.param(
            b"POST /bodies HTTP/1.1\r\ncontent-length: 5\r\n" + WEBSOCKET_OFFER + b"\r\nhello",
            [b"200"],
            id="POST",
        ),
        pytest.param(
            b"GET /socket HTTP/1.0\r\n" + WEBSOCKET_OFFER + b"\r\n", [b"404"], id="HTTP/1.0"
        ),
        pytest.param(
            GET + b"GET /socket HTTP/1.1\r\n" + WEBSOCKET_OFFER + b"\r\n",
            [b"200", b"404"],
            id="behind another request",
        ),
    ],
)
async def test_another_request_with_an_offer_of_websockets_is_served_without_it(
    app: FastAPI, serve: Serve, request_: bytes, statuses: list[bytes]
) -> None:
    """RFC 6455, section 4.1, requires GET and HTTP/1.1."""
    async with serve(app, ws=EchoProtocol) as client, connected(client) as (reader, writer):
        writer.write(request_)
        writer.write_eof()
        received = await reader.read()
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == statuses
