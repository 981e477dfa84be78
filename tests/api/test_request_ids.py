"""X-Request-ID connects a response to its log lines, and `traceparent` those to a trace."""

import re
from typing import Any

import httpx
import pytest

from tests.conftest import LogLines

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"


def access_line(log_lines: LogLines) -> dict[str, Any]:
    """The only access log line."""
    [line] = [line for line in log_lines() if line["message"] == "request"]
    return line


@pytest.mark.parametrize("request_id", ["a", "Az09_.:-", "x" * 128])
async def test_a_valid_request_id_is_kept(
    things: httpx.AsyncClient, log_lines: LogLines, request_id: str
) -> None:
    response = await things.get("/things/7", headers={"X-Request-ID": request_id})
    assert response.headers["x-request-id"] == request_id
    assert access_line(log_lines)["request_id"] == request_id


@pytest.mark.parametrize(
    "request_id", [b"", b"x" * 129, b"a b", b'a"b', b"a,b", b"a\tb", b"\xff", b"%0A", b"{}"]
)
async def test_an_invalid_request_id_is_replaced(
    things: httpx.AsyncClient, log_lines: LogLines, request_id: bytes
) -> None:
    response = await things.get("/things/7", headers={b"X-Request-ID": request_id})
    new_request_id = response.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", new_request_id)
    assert access_line(log_lines)["request_id"] == new_request_id


async def test_each_request_without_an_id_gets_a_new_one(things: httpx.AsyncClient) -> None:
    responses = [await things.get("/unknown") for _ in range(3)]
    request_ids = {response.headers["x-request-id"] for response in responses}
    assert len(request_ids) == 3
    assert request_ids == {response.json()["request_id"] for response in responses}


@pytest.mark.parametrize(
    "traceparent", [f"00-{TRACE_ID}-{SPAN_ID}-01", f"cc-{TRACE_ID}-{SPAN_ID}-00"]
)
async def test_a_valid_traceparent_is_logged_and_not_returned(
    things: httpx.AsyncClient, log_lines: LogLines, traceparent: str
) -> None:
    response = await things.get("/things/7", headers={"traceparent": traceparent})
    assert "traceparent" not in response.headers  # it is a header of requests
    assert access_line(log_lines)["traceparent"] == traceparent


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"00-{TRACE_ID[1:]}-{SPAN_ID}-01",
        f"0-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-0x",
    ],
)
async def test_an_invalid_traceparent_is_dropped(
    things: httpx.AsyncClient, log_lines: LogLines, traceparent: str
) -> None:
    await things.get("/things/7", headers={"traceparent": traceparent})
    assert [line for line in log_lines() if "traceparent" in line] == []


@pytest.mark.parametrize(("method", "path"), [("GET", "/unknown"), ("DELETE", "/things/7")])
async def test_error_responses_have_the_request_id(
    things: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await things.request(method, path, headers={"X-Request-ID": "abc"})
    assert response.headers["x-request-id"] == "abc"
    assert response.json()["request_id"] == "abc"
