"""The limit on the size of a body."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import Request

from fastapi_k8s.main import create_app
from tests.conftest import LogLines, MakeSettings, Serve

from .conftest import LIMIT

JSON = {"Content-Type": "application/json"}


def body(size: int) -> bytes:
    """A valid body of `size` bytes."""
    return b'{"size":{"width":1}}'.ljust(size)


async def in_chunks(content: bytes) -> AsyncIterator[bytes]:
    """Sent like this, a body does not declare its size."""
    yield content[:100]
    yield content[100:]


@pytest.mark.parametrize("send", [bytes, in_chunks], ids=["declared", "in chunks"])
async def test_a_body_of_the_limit_is_accepted(
    things: httpx.AsyncClient, send: type[bytes]
) -> None:
    answer = await things.post("/things", content=send(body(LIMIT)), headers=JSON)
    assert answer.status_code == 201


@pytest.mark.parametrize("send", [bytes, in_chunks], ids=["declared", "in chunks"])
async def test_a_larger_body_is_413_and_the_client_is_served_on(
    things: httpx.AsyncClient, send: type[bytes]
) -> None:
    answer = await things.post("/things", content=send(body(LIMIT + 1)), headers=JSON)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert answer.json()["title"] == "Content Too Large"
    assert (await things.get("/things/7")).status_code == 200


@pytest.mark.parametrize("send", [bytes, in_chunks], ids=["declared", "in chunks"])
async def test_an_operation_can_raise_the_limit(
    make_settings: MakeSettings, serve: Serve, send: type[bytes]
) -> None:
    app = create_app(make_settings(max_body_size=10))

    @app.post("/uploads", max_body_size=20)
    async def upload(request: Request) -> int:
        return len(await request.body())

    async with serve(app) as client:
        for size, status in ((20, 200), (21, 413)):
            response = await client.post("/uploads", content=send(b"x" * size))
            assert response.status_code == status


@pytest.mark.parametrize("send", [bytes, in_chunks], ids=["declared", "in chunks"])
async def test_a_413_has_a_request_id_and_a_log_line(
    things: httpx.AsyncClient, log_lines: LogLines, send: type[bytes]
) -> None:
    response = await things.post("/things", content=send(body(LIMIT + 1)), headers=JSON)
    [line] = log_lines()
    assert (line["status"], line["level"]) == (413, "INFO")
    assert line["request_id"] == response.headers["x-request-id"] == response.json()["request_id"]
