"""A worker that holds thousands of idle connections still serves requests."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from urllib.parse import urlsplit

import httpx
import pytest

from tests.faults.durable_service import running_service

IDLE_CONNECTIONS = 5000
DESCRIPTORS = 2 * IDLE_CONNECTIONS + 200
"""A worker leaves half of its file descriptors to the connections that the application opens."""

KEEP_ALIVE_SECONDS = 600
"""Longer than the test may take, so that the server closes no connection for its age."""

REQUESTS = 500
IDLE_REQUEST = b"HEAD /version HTTP/1.1\r\nHost: api\r\n\r\n"


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Raise the limit of open files of this process and of those that it starts."""
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard_limit != resource.RLIM_INFINITY and hard_limit < DESCRIPTORS:
        reason = f"The hard limit of open files is {hard_limit}; the test needs {DESCRIPTORS}."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard_limit))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft_limit, hard_limit))


def open_idle_connection(port: int) -> socket.socket:
    """A connection that is kept alive after one request."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(IDLE_REQUEST)
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    connection.setblocking(False)
    return connection


def is_open(connection: socket.socket) -> bool:
    """Whether the server has neither closed the connection nor sent anything on it."""
    try:
        connection.recv(1)
    except BlockingIOError:
        return True
    return False


def p99_milliseconds(client: httpx.Client, path: str) -> float:
    """The p99 latency of requests one after the other. Each must succeed."""
    durations = []
    for _ in range(REQUESTS):
        start_time = perf_counter()
        client.get(path).raise_for_status()
        durations.append(1000 * (perf_counter() - start_time))
    return quantiles(durations, n=100)[98]


@pytest.mark.usefixtures("many_descriptors")
async def test_requests_are_served_while_thousands_of_idle_connections_are_held(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_service(tmp_path, f"--keep-alive={KEEP_ALIVE_SECONDS}") as service:
        with ExitStack() as stack, httpx.Client(base_url=service.url, timeout=60) as client:
            paths = {"/health": "/health", "/version": "/version"}
            # example
            item = client.post("/items", json={"name": "Lamp"}).raise_for_status()
            paths["/items/{id}"] = item.headers["Location"]
            # end example
            p99_without = {name: p99_milliseconds(client, path) for name, path in paths.items()}
            port = urlsplit(service.url).port
            assert port is not None
            connections = [
                stack.enter_context(open_idle_connection(port)) for _ in range(IDLE_CONNECTIONS)
            ]
            p99_with = {name: p99_milliseconds(client, path) for name, path in paths.items()}
            assert all(is_open(connection) for connection in connections)
    with capsys.disabled():
        print("\n| p99 in ms | Without | With idle connections |\n|---|---|---|")
        for name in paths:
            print(f"| `GET {name}` | {p99_without[name]:.1f} | {p99_with[name]:.1f} |")
