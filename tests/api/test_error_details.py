"""What an operation raises becomes a response, whatever its status and its detail are."""

import asyncio
import string
from collections.abc import AsyncIterator
from itertools import islice, product
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Body, HTTPException, Query
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, Json

from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve
from tests.raw_requests import GET_LAST, HOST, exchange, statuses

from .conftest import router as things_router
from .test_errors import JSON, read_invalid_fields, read_problem

TEXT = {"Content-Type": "text/plain"}
BINARY = {"Content-Type": "application/octet-stream"}
UNKNOWN_KEYS = 131_001
"""As many keys of three characters as a body of 1 MiB has room for."""

router = APIRouter()


class JsonQuery(BaseModel):
    filter: Json[dict[str, int]]


class JsonBody(BaseModel):
    options: Json[dict[str, int]]


@router.get("/json")
async def read_json_query(query: Annotated[JsonQuery, Query()]) -> Any:
    return query.filter


@router.post("/json")
async def read_json_field(body: JsonBody) -> Any:
    return body.options


@router.post("/json-list")
async def read_json_list(body: list[Json[int]]) -> list[int]:
    return body


@router.post("/binary")
async def read_binary_body(body: Annotated[bytes, Body(max_length=5)], size: int) -> bool:
    return len(body) == size


@router.post("/maps")
async def read_map(body: dict[str, list[int]]) -> int:
    return len(body)


@router.post("/quota/{kind}")
async def refuse_body(kind: str, body: Annotated[bytes, Body()]) -> Response:
    if kind == "json":
        return JSONResponse({"code": "quota"}, 413)
    return PlainTextResponse(f"{len(body)} bytes exceed the quota.", 413)


@router.get("/raised/{name}")
async def raise_exception(name: str) -> None:
    raise RAISED[name]


RAISED = {
    "object": HTTPException(409, {"code": "stock_empty", "status": 200, "left": None}),
    "list": HTTPException(409, ["stock", 1]),
    "number": HTTPException(409, 0),
    "exception": HTTPException(409, ValueError("no stock"), {"X-Reason": "stock"}),
    "bytes": HTTPException(409, b"\xff"),
    "surrogate in an object": HTTPException(409, {"name": "\ud800"}),
    "empty": HTTPException(409, ""),
    "surrogate": HTTPException(409, "no \ud800"),
    "499": HTTPException(499, "The client is gone."),
    "440": HTTPException(440),
    "599": HTTPException(599, {"code": "upstream"}),
    "204": HTTPException(204),
    "205": HTTPException(205),
    "304": HTTPException(304, headers={"ETag": '"x"'}),
}


@pytest.fixture
async def client(make_settings: MakeSettings, serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with the routes above, and with `/things`."""
    app = create_app(make_settings())
    app.include_router(router)
    app.include_router(things_router)
    async with serve(app) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("object", {"code": "stock_empty", "status": 200, "left": None}),
        ("list", ["stock", 1]),
        ("number", 0),
        ("exception", "no stock"),
        ("bytes", r"b'\xff'"),
        ("surrogate in an object", r"{'name': '\ud800'}"),
    ],
)
async def test_a_detail_that_is_not_text_is_the_member_data(
    client: httpx.AsyncClient, name: str, data: Any
) -> None:
    response = await client.get(f"/raised/{name}")
    problem = read_problem(response, 409)
    assert (problem["detail"], problem["data"]) == ("Conflict", data)
    assert response.headers.get("x-reason") == ("stock" if name == "exception" else None)


@pytest.mark.parametrize(("name", "detail"), [("empty", "Conflict"), ("surrogate", r"no \ud800")])
async def test_a_detail_that_is_text_stays_text(
    client: httpx.AsyncClient, name: str, detail: str
) -> None:
    problem = read_problem(await client.get(f"/raised/{name}"), 409)
    assert problem["detail"] == detail
    assert "data" not in problem


@pytest.mark.parametrize(
    ("status", "title", "detail"),
    [
        (499, "Client Error", "The client is gone."),
        (440, "Client Error", "Client Error"),
        (599, "Server Error", "Server Error"),
    ],
)
async def test_a_status_without_a_name_has_that_of_its_class_as_its_title(
    client: httpx.AsyncClient, status: int, title: str, detail: str
) -> None:
    problem = read_problem(await client.get(f"/raised/{status}"), status)
    assert (problem["title"], problem["detail"]) == (title, detail)


@pytest.mark.parametrize("status", [204, 205, 304])
async def test_a_status_that_allows_no_body_has_none_and_the_next_request_is_served(
    client: httpx.AsyncClient, status: int
) -> None:
    request = b"GET /raised/%d HTTP/1.1\r\n" % status + HOST + b"\r\n"
    received = await asyncio.to_thread(exchange, str(client.base_url), request + GET_LAST)
    assert statuses(received) == [status, 200]
    assert received.count(b"application/problem+json") == 0
    response = await client.get(f"/raised/{status}")
    assert (response.status_code, response.content) == (status, b"")
    assert response.headers.get("etag") == ('"x"' if status == 304 else None)


async def test_a_422_lists_the_first_100_of_many_invalid_fields(client: httpx.AsyncClient) -> None:
    """A response with all fields would have 9 MB, and 80 MB would be needed to create it."""
    characters = string.ascii_letters + string.digits
    keys = islice(product(characters, repeat=3), UNKNOWN_KEYS)
    body = "{" + ",".join(f'"{"".join(key)}":0' for key in keys) + "}"
    assert 1_000_000 < len(body) <= 1_048_576
    response = await client.post("/things", content=body, headers=JSON)
    problem = read_problem(response, 422)
    assert problem["detail"] == "The request has 131002 invalid fields."  # and `size` is missing
    assert len(problem["errors"]) == 100
    assert len(response.content) < 10_000


async def test_a_422_does_not_repeat_a_long_key_for_each_field(client: httpx.AsyncClient) -> None:
    key = "k" * 100_000
    response = await client.post("/maps", json={key: ["x"] * 100})
    assert {error["field"] for error in read_problem(response, 422)["errors"]} == {key[:200]}
    assert len(response.content) < 50_000


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [("/json", {"options": "{"}, "options"), ("/json-list", ["{"], "0")],
)
async def test_invalid_json_in_a_field_of_the_body_is_422(
    client: httpx.AsyncClient, path: str, body: Any, field: str
) -> None:
    assert read_invalid_fields(await client.post(path, json=body)) == {("body", field)}


async def test_invalid_json_in_the_query_is_422(client: httpx.AsyncClient) -> None:
    response = await client.get("/json", params={"filter": "{"})
    assert read_invalid_fields(response) == {("query", "filter")}


@pytest.mark.parametrize(
    ("query", "body", "fields"),
    [
        ("", b"five5", {("query", "size")}),
        ("?size=6", b"longer", {("body", "")}),
        ("", b"longer", {("query", "size"), ("body", "")}),
    ],
    ids=["query", "body", "both"],
)
async def test_an_operation_that_accepts_bytes_refuses_no_media_type(
    client: httpx.AsyncClient, query: str, body: bytes, fields: set[tuple[str, str]]
) -> None:
    response = await client.post(f"/binary{query}", content=body, headers=BINARY)
    assert read_invalid_fields(response) == fields


@pytest.mark.parametrize("path", ["/things", "/json", "/json-list", "/maps"])
async def test_another_media_type_is_415_where_json_is_expected(
    client: httpx.AsyncClient, path: str
) -> None:
    response = await client.post(path, content=b"{}", headers=TEXT)
    assert "application/json" in read_problem(response, 415)["detail"]


@pytest.mark.parametrize(
    ("kind", "content"), [("json", b'{"code":"quota"}'), ("text", b"5 bytes exceed the quota.")]
)
async def test_the_413_of_an_operation_is_not_replaced(
    client: httpx.AsyncClient, kind: str, content: bytes
) -> None:
    response = await client.post(f"/quota/{kind}", content=b"bytes", headers=BINARY)
    assert (response.status_code, response.content) == (413, content)
