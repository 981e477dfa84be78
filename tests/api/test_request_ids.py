"""The ids that tie an answer to the lines of the log and to a trace."""

import re

import httpx
import pytest

from tests.conftest import LogLines

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("given", ["a", "Az09_.:-", "x" * 128])
async def test_a_sane_request_id_is_kept(
    things: httpx.AsyncClient, log_lines: LogLines, given: str
) -> None:
    answer = await things.get("/things/7", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == given
    assert [line["request_id"] for line in log_lines() if line["message"] == "request"] == [given]


@pytest.mark.parametrize(
    "given", [b"", b"x" * 129, b"a b", b'a"b', b"a,b", b"a\tb", b"\xff", b"%0A", b"{}"]
)
async def test_an_insane_request_id_is_replaced(
    things: httpx.AsyncClient, log_lines: LogLines, given: bytes
) -> None:
    answer = await things.get("/things/7", headers={b"X-Request-ID": given})
    made = answer.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert [line["request_id"] for line in log_lines() if line["message"] == "request"] == [made]


async def test_each_request_without_an_id_gets_its_own(things: httpx.AsyncClient) -> None:
    answers = [await things.get("/nothing") for _ in range(3)]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 3
    assert ids == {answer.json()["request_id"] for answer in answers}


@pytest.mark.parametrize("given", [f"00-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-00"])
async def test_a_valid_traceparent_is_sent_back_and_logged(
    things: httpx.AsyncClient, log_lines: LogLines, given: str
) -> None:
    answer = await things.get("/things/7", headers={"traceparent": given})
    assert answer.headers["traceparent"] == given
    assert [line["traceparent"] for line in log_lines() if line["message"] == "request"] == [given]


@pytest.mark.parametrize(
    "given",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
    ],
)
async def test_an_invalid_traceparent_is_dropped(
    things: httpx.AsyncClient, log_lines: LogLines, given: str
) -> None:
    answer = await things.get("/things/7", headers={"traceparent": given})
    assert "traceparent" not in answer.headers
    assert [line for line in log_lines() if "traceparent" in line] == []


async def test_errors_carry_the_ids_too(things: httpx.AsyncClient) -> None:
    given = {"X-Request-ID": "abc", "traceparent": f"00-{TRACE}-{SPAN}-01"}
    for answer in (
        await things.get("/nothing", headers=given),
        await things.delete("/things/7", headers=given),
    ):
        assert {**given, **answer.headers} == {**answer.headers, **given}
        assert answer.headers["x-request-id"] == "abc"
        assert answer.headers["traceparent"] == given["traceparent"]
        assert answer.json()["request_id"] == "abc"
