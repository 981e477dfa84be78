"""HEAD is answered like GET, without a body (RFC 9110, section 9.3.2)."""

import httpx
import pytest
from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles

from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve
from tools.checkout import PROJECT

from .test_metrics import count_requests

CHANGING_HEADERS = {"x-request-id", "date"}


def stable_headers(response: httpx.Response) -> dict[str, str]:
    """The headers that do not differ between two requests."""
    return {name: value for name, value in response.headers.items() if name not in CHANGING_HEADERS}


@pytest.mark.parametrize(
    "path",
    ["/health", "/ready", "/version", "/docs", "/openapi.json", "/things/7", "/things/x", "/none"],
)
async def test_head_has_the_status_and_headers_of_get_and_no_body(
    things: httpx.AsyncClient, path: str
) -> None:
    response = await things.get(path)
    head = await things.head(path)
    assert head.status_code == response.status_code
    assert stable_headers(head) == stable_headers(response)
    assert int(head.headers["content-length"]) == len(response.content) > 0
    assert head.content == b""
    # The connection is still usable: no body was sent that the client did not read.
    assert (await things.get("/things/7")).json() == 7


async def test_head_is_counted_as_head(things: httpx.AsyncClient) -> None:
    labels = {"method": "HEAD", "route": "/things/{thing_id}", "status": "200"}
    before = await count_requests(things, **labels)
    await things.head("/things/7")
    assert await count_requests(things, **labels) - before == 1


async def test_head_is_405_where_get_is(make_settings: MakeSettings, serve: Serve) -> None:
    app = create_app(make_settings())

    @app.post("/orders")
    async def create_order() -> str:
        return "created"

    async with serve(app) as client:
        response = await client.head("/orders")
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"


async def test_a_route_can_declare_head_itself(make_settings: MakeSettings, serve: Serve) -> None:
    app = create_app(make_settings())

    @app.get("/files")
    async def read_file() -> str:
        return "expensive"

    @app.head("/files")
    async def describe_file() -> Response:
        return Response(headers={"Content-Length": "1000"})

    async with serve(app) as client:
        assert (await client.head("/files")).headers["content-length"] == "1000"
        assert (await client.get("/files")).json() == "expensive"


async def test_a_mounted_application_gets_head_as_it_is(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings())
    app.mount("/static", StaticFiles(directory=PROJECT))
    async with serve(app) as client:
        head = await client.head("/static/README.md")
        assert (head.status_code, head.content) == (200, b"")
        response = await client.post("/static/README.md")
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/README.md", 200), ("/x", 404)])
async def test_an_application_mounted_at_the_root_does_not_hide_the_routes(
    make_settings: MakeSettings, serve: Serve, path: str, status: int
) -> None:
    app = create_app(make_settings())
    app.mount("/", StaticFiles(directory=PROJECT))
    async with serve(app) as client:
        assert (await client.get(path)).status_code == status
        assert (await client.head(path)).status_code == status


async def test_an_application_can_be_mounted_for_a_host(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings())
    app.host("files.example.com", StaticFiles(directory=PROJECT))
    async with serve(app) as client:
        assert (await client.head("/health")).status_code == 200
        headers = {"Host": "files.example.com"}
        assert (await client.head("/README.md", headers=headers)).status_code == 200


def test_head_is_not_in_the_openapi_document(make_settings: MakeSettings) -> None:
    """Generated clients would get a second operation for each GET."""
    app: FastAPI = create_app(make_settings())
    for operations in app.openapi()["paths"].values():
        assert "head" not in operations
