"""Each request is logged as one access log line, except requests of probes."""

import json
from typing import Any

import httpx
import pytest

from tests.conftest import LogLines


def access_lines(log_lines: LogLines) -> list[dict[str, Any]]:
    return [line for line in log_lines() if line["message"] == "request"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/things/7", 200),
        ("HEAD", "/things/7", 200),
        ("GET", "/unknown", 404),
        ("PROPFIND", "/things/7", 405),
        ("DELETE", "/things/7", 500),
    ],
)
async def test_each_request_is_logged_as_one_access_log_line(
    things: httpx.AsyncClient, log_lines: LogLines, method: str, path: str, status: int
) -> None:
    await things.request(method, path)
    [line] = access_lines(log_lines)
    assert (line["method"], line["path"], line["status"]) == (method, path, status)
    assert line["duration_ms"] >= 0
    assert line["client"] == "127.0.0.1"


async def test_the_query_string_is_not_logged(
    things: httpx.AsyncClient, log_lines: LogLines
) -> None:
    await things.get("/things/7?token=hidden")
    await things.delete("/things/8?token=hidden")
    assert [line["path"] for line in access_lines(log_lines)] == ["/things/7", "/things/8"]
    assert not [line for line in log_lines() if "token" in str(line)]


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
async def test_requests_of_probes_are_not_logged(
    client: httpx.AsyncClient, log_lines: LogLines, path: str
) -> None:
    await client.get(path)
    await client.get("/version")
    assert [line["path"] for line in access_lines(log_lines)] == ["/version"]


async def test_a_path_cannot_inject_a_log_line(
    things: httpx.AsyncClient, log_lines: LogLines
) -> None:
    await things.get('/a%0A{"level":"ERROR"}')
    [line] = access_lines(log_lines)
    assert line["path"] == '/a\n{"level":"ERROR"}'


async def test_a_long_path_is_shortened(things: httpx.AsyncClient, log_lines: LogLines) -> None:
    """Container runtimes split a line of more than 16 KiB, and JSON escapes these characters."""
    path = "/" + '"' * 1300
    await things.get(path)
    [line] = access_lines(log_lines)
    assert line["path"] == f"{path[:1024]}... (1301 characters)"
    assert len(json.dumps(line)) < 16_384
