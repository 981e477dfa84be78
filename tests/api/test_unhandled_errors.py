"""What happens when the code itself is wrong."""

import httpx
import pytest

from tests.conftest import LogLines


async def test_an_unhandled_error_is_500_and_says_nothing_of_itself(
    things: httpx.AsyncClient,
) -> None:
    answer = await things.delete("/things/7")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "An unexpected error occurred.",
        "instance": "/things/7",
        "request_id": answer.headers["x-request-id"],
    }


async def test_an_unhandled_error_is_logged_once_with_its_cause_and_the_requests_id(
    things: httpx.AsyncClient, log_lines: LogLines
) -> None:
    answer = await things.delete("/things/7")
    [line] = [line for line in log_lines() if "exception" in line]
    assert line["level"] == "ERROR"
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["exception"]["type"], line["exception"]["message"]) == ("RuntimeError", "hidden")
    assert "KeyError: 7" in "".join(line["exception"]["stack"])


async def test_the_next_request_on_the_connection_is_answered(things: httpx.AsyncClient) -> None:
    await things.delete("/things/7")
    assert (await things.get("/things/7")).json() == 7


async def test_an_error_after_the_answer_began_cuts_the_connection_and_is_logged(
    things: httpx.AsyncClient, log_lines: LogLines
) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await things.get("/things")
    lines = [line for line in log_lines() if line["message"] == "unhandled error"]
    assert [line["exception"]["message"] for line in lines] == ["hidden"]
    [access] = [line for line in log_lines() if line["message"] == "request"]
    assert access["status"] == 200  # what the client was told
