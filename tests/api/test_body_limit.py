"""The limit on the size of a body."""

from collections.abc import AsyncIterator

import httpx
import pytest

from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve

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


async def test_the_service_has_the_limit_of_its_settings(
    make_settings: MakeSettings, serve: Serve
) -> None:
    async with serve(create_app(make_settings(max_body_size=10))) as client:
        assert (await client.post("/nothing", content=b"x" * 10)).status_code == 404
        assert (await client.post("/nothing", content=b"x" * 11)).status_code == 413
