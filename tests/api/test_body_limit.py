"""A request body above `max_body_size` is refused with 413 and problem details."""

from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.routing import Route

from fastapi_k8s.errors import add_exception_handlers
from fastapi_k8s.main import create_app
from tests.conftest import LogLines, MakeSettings, Serve

from .conftest import MAX_BODY_SIZE

JSON = {"Content-Type": "application/json"}
Send: TypeAlias = Callable[[bytes], bytes | AsyncIterator[bytes]]


def make_body(size: int) -> bytes:
    """A valid body of `size` bytes."""
    return b'{"size":{"width":1}}'.ljust(size)


async def send_in_chunks(body: bytes) -> AsyncIterator[bytes]:
    """Without Content-Length, so that the size is known only at the end."""
    yield body[:10]
    yield body[10:]


both_ways_to_send = pytest.mark.parametrize(
    "send", [bytes, send_in_chunks], ids=["Content-Length", "chunks"]
)


@both_ways_to_send
async def test_a_body_of_exactly_the_limit_is_accepted(
    things: httpx.AsyncClient, send: Send
) -> None:
    body = make_body(MAX_BODY_SIZE)
    response = await things.post("/things", content=send(body), headers=JSON)
    assert response.status_code == 201


@both_ways_to_send
async def test_a_larger_body_is_413_and_the_next_request_succeeds(
    things: httpx.AsyncClient, send: Send
) -> None:
    body = make_body(MAX_BODY_SIZE + 1)
    response = await things.post("/things", content=send(body), headers=JSON)
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["connection"] == "close"
    assert response.json()["title"] == "Content Too Large"
    assert (await things.get("/things/7")).status_code == 200


@both_ways_to_send
async def test_an_operation_can_raise_the_limit(
    make_settings: MakeSettings, serve: Serve, send: Send
) -> None:
    app = create_app(make_settings(max_body_size=10))

    @app.post("/uploads", max_body_size=20)
    async def upload(request: Request) -> int:
        return len(await request.body())

    async with serve(app) as client:
        for size, status in ((20, 200), (21, 413)):
            response = await client.post("/uploads", content=send(b"x" * size))
            assert response.status_code == status


@both_ways_to_send
async def test_an_operation_of_an_included_router_can_raise_the_limit(
    make_settings: MakeSettings, serve: Serve, send: Send
) -> None:
    """The other operations of the router keep the limit of the application."""
    router = APIRouter(prefix="/files")

    @router.post("/uploads", max_body_size=20)
    async def upload(request: Request) -> int:
        return len(await request.body())

    @router.post("/notes")
    async def create_note(request: Request) -> int:
        return len(await request.body())

    app = create_app(make_settings(max_body_size=10))
    app.include_router(router)
    async with serve(app) as client:
        for path, limit in (("/files/uploads", 20), ("/files/notes", 10)):
            accepted = await client.post(path, content=send(b"x" * limit))
            assert (accepted.status_code, accepted.json()) == (200, limit)
            refused = await client.post(path, content=send(b"x" * (limit + 1)))
            assert refused.status_code == 413
            assert refused.headers["content-type"] == "application/problem+json"


@both_ways_to_send
async def test_mounted_applications_and_routes_of_starlette_have_their_own_limit(
    make_settings: MakeSettings, serve: Serve, send: Send
) -> None:
    """The limit of the application does not apply to them, as it is on its router."""

    async def read_body(request: Request) -> Response:
        return Response(str(len(await request.body())))

    mounted = FastAPI(max_body_size=20)
    add_exception_handlers(mounted)
    mounted.add_api_route("/uploads", read_body, methods=["POST"])
    app = create_app(make_settings(max_body_size=10))
    app.mount("/mounted", mounted)
    app.router.routes.append(Route("/plain", read_body, methods=["POST"], max_body_size=20))
    async with serve(app) as client:
        for path in ("/mounted/uploads", "/plain"):
            accepted = await client.post(path, content=send(b"x" * 20))
            assert (accepted.status_code, accepted.text) == (200, "20")
            refused = await client.post(path, content=send(b"x" * 21))
            assert refused.status_code == 413
            assert refused.headers["content-type"] == "application/problem+json"


@both_ways_to_send
async def test_a_413_has_a_request_id_and_an_access_log_line(
    things: httpx.AsyncClient, log_lines: LogLines, send: Send
) -> None:
    body = make_body(MAX_BODY_SIZE + 1)
    response = await things.post("/things", content=send(body), headers=JSON)
    [line] = log_lines()
    assert (line["status"], line["level"]) == (413, "INFO")
    assert line["request_id"] == response.headers["x-request-id"]
    assert line["request_id"] == response.json()["request_id"]
