"""The line that a request leaves in the log."""

import json
from typing import Any

import httpx
import pytest

from tests.conftest import LogLines
from tools.checkout import PROJECT


def access(log_lines: LogLines) -> list[dict[str, Any]]:
    return [line for line in log_lines() if line["message"] == "request"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/things/7", 200), ("GET", "/nothing", 404), ("DELETE", "/things/7", 500)],
)
async def test_a_request_is_one_line(
    things: httpx.AsyncClient, log_lines: LogLines, method: str, path: str, status: int
) -> None:
    await things.request(method, path)
    [line] = access(log_lines)
    assert (line["method"], line["path"], line["status"]) == (method, path, status)
    assert line["duration_ms"] >= 0
    assert line["client"] == "127.0.0.1"


async def test_a_query_is_not_logged(things: httpx.AsyncClient, log_lines: LogLines) -> None:
    await things.get("/things/7?token=hidden")
    await things.delete("/things/8?token=hidden")
    assert [line["path"] for line in access(log_lines)] == ["/things/7", "/things/8"]
    assert not [line for line in log_lines() if "token" in str(line)]


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
async def test_a_probe_leaves_no_line(
    client: httpx.AsyncClient, log_lines: LogLines, path: str
) -> None:
    await client.get(path)
    await client.get("/version")
    assert [line["path"] for line in access(log_lines)] == ["/version"]


async def test_a_path_cannot_forge_a_line(things: httpx.AsyncClient, log_lines: LogLines) -> None:
    await things.get('/a%0A{"level":"ERROR"}')
    [line] = access(log_lines)
    assert line["path"] == '/a\n{"level":"ERROR"}'


@pytest.fixture
def on_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kubernetes tells a container, before the formatter reads it."""
    for name in ("POD_NAME", "POD_NAMESPACE", "NODE_NAME"):
        monkeypatch.setenv(name, "test")


@pytest.mark.usefixtures("on_a_pod")
async def test_the_line_is_the_documented_one(
    client: httpx.AsyncClient, log_lines: LogLines
) -> None:
    page = (PROJECT / "docs" / "observability.md").read_text()
    documented = json.loads(page.split("```json\n")[1].split("```")[0])
    await client.get(documented["path"], headers={"traceparent": documented["traceparent"]})
    [line] = access(log_lines)
    assert list(line) == list(documented)
    told = ("level", "logger", "message", "traceparent", "method", "path", "status", "client")
    assert [line[name] for name in told] == [documented[name] for name in told]
