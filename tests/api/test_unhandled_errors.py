"""An exception that nothing handles becomes a 500 without details, and is logged with them."""

import httpx
import pytest

from tests.conftest import LogLines


async def test_an_unhandled_error_is_500_without_its_message(things: httpx.AsyncClient) -> None:
    response = await things.delete("/things/7")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "An unexpected error occurred.",
        "instance": "/things/7",
        "request_id": response.headers["x-request-id"],
    }


async def test_an_unhandled_error_is_logged_once_with_its_cause_and_the_request_id(
    things: httpx.AsyncClient, log_lines: LogLines
) -> None:
    response = await things.delete("/things/7")
    [line] = [line for line in log_lines() if "exception" in line]
    assert line["level"] == "ERROR"
    assert line["request_id"] == response.headers["x-request-id"]
    assert (line["exception"]["type"], line["exception"]["message"]) == ("RuntimeError", "hidden")
    assert "KeyError: 7" in "".join(line["exception"]["stack"])


async def test_the_next_request_on_the_connection_succeeds(things: httpx.AsyncClient) -> None:
    await things.delete("/things/7")
    assert (await things.get("/things/7")).json() == 7


async def test_an_error_after_the_start_of_the_response_closes_the_connection_and_is_logged_once(
    things: httpx.AsyncClient, log_lines: LogLines
) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await things.get("/things", headers={"X-Request-ID": "abc"})
    [line] = [line for line in log_lines() if line["level"] == "ERROR"]
    assert line["exception"]["message"] == "hidden"
    assert line["request_id"] == "abc"
    [access_line] = [line for line in log_lines() if line["message"] == "request"]
    assert access_line["status"] == 200  # as in the response, whose head was sent already
    assert access_line["cut_by"] == "error"


async def test_the_error_of_a_background_task_is_logged_once_and_leaves_the_connection_open(
    things: httpx.AsyncClient, log_lines: LogLines
) -> None:
    response = await things.post("/things/7/reports", headers={"X-Request-ID": "abc"})
    assert (response.status_code, response.json()) == (200, "accepted")
    assert (await things.get("/things/7")).json() == 7
    [line] = [line for line in log_lines() if line["level"] == "ERROR"]
    assert (line["message"], line["exception"]["message"]) == ("unhandled error", "hidden")
    assert line["request_id"] == "abc"
