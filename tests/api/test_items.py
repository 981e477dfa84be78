"""Which requests the items API refuses, and how OpenAPI describes it.

The database is unreachable here, so the response to a valid request is 503.
"""

from typing import Any

import httpx
import pytest

from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings

ITEM = "/items/019a0000-0000-7000-8000-000000000000"
CURSOR = "AZoAAAAAcACAAAAAAAAAAA=="
JSON = {"Content-Type": "application/json"}
ANY_VERSION = {"If-Match": "*"}


def read_invalid_fields(response: httpx.Response) -> list[tuple[str, str]]:
    """The location and the name of each invalid field of a 422."""
    assert response.status_code == 422
    return [(error["in"], error["field"]) for error in response.json()["errors"]]


async def create_and_replace(client: httpx.AsyncClient, content: Any) -> list[httpx.Response]:
    """The responses to a POST and to a PUT with the same content."""
    created = await client.post("/items", json=content)
    replaced = await client.put(ITEM, json=content, headers=ANY_VERSION)
    return [created, replaced]


async def request_item(client: httpx.AsyncClient, method: str, path: str) -> httpx.Response:
    """The response to a request that is valid, if `path` is."""
    content = b'{"name": "x"}' if method == "PUT" else b""
    return await client.request(method, path, content=content, headers=JSON | ANY_VERSION)


@pytest.mark.parametrize(
    "content",
    [
        {"name": "x"},
        {"name": "x" * 200, "description": "x" * 10_000},
        {"name": "💡" * 200, "description": None},
        {"name": " ", "description": ""},
    ],
)
async def test_valid_content_reaches_the_database(
    client: httpx.AsyncClient, content: dict[str, Any]
) -> None:
    for response in await create_and_replace(client, content):
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.headers["content-type"] == "application/problem+json"
        assert "hidden" not in response.text


@pytest.mark.parametrize(
    ("content", "invalid_field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": 7}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x", "description": "x" * 10_001}, "description"),
        ({"name": "x", "description": "\0"}, "description"),
        ({"name": "x", "colour": "red"}, "colour"),
        ({"name": "x", "id": "7"}, "id"),
    ],
)
async def test_invalid_content_is_422_with_the_name_of_the_field(
    client: httpx.AsyncClient, content: dict[str, Any], invalid_field: str
) -> None:
    for response in await create_and_replace(client, content):
        assert read_invalid_fields(response) == [("body", invalid_field)]


@pytest.mark.parametrize("field", ["name", "description"])
async def test_text_with_a_lone_surrogate_is_422(client: httpx.AsyncClient, field: str) -> None:
    """PostgreSQL cannot store it."""
    body = b'{"name": "x", "%b": "\\ud800"}' % field.encode()
    response = await client.post("/items", content=body, headers=JSON)
    assert read_invalid_fields(response) == [("body", field)]


@pytest.mark.parametrize("key", ["k", "8e03978e-40d5-43dd-bc93-6894a57f9324", "~" * 255])
async def test_an_idempotency_key_of_printable_ascii_is_accepted(
    client: httpx.AsyncClient, key: str
) -> None:
    response = await client.post("/items", json={"name": "x"}, headers={"Idempotency-Key": key})
    assert response.status_code == 503


@pytest.mark.parametrize("key", [b"", b"a b", b"x" * 256, b"\xe9", b"a\tb"])
async def test_any_other_idempotency_key_is_422(client: httpx.AsyncClient, key: bytes) -> None:
    response = await client.post("/items", json={"name": "x"}, headers={b"Idempotency-Key": key})
    assert read_invalid_fields(response) == [("header", "Idempotency-Key")]


@pytest.mark.parametrize("query", ["", "?limit=1", "?limit=100", f"?cursor={CURSOR}&limit=2"])
async def test_valid_parameters_of_a_page_are_accepted(
    client: httpx.AsyncClient, query: str
) -> None:
    assert (await client.get(f"/items{query}")).status_code == 503


@pytest.mark.parametrize(
    ("query", "invalid_field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=many", "limit"),
        ("cursor=", "cursor"),
        ("cursor=abc", "cursor"),
        ("cursor=YWJj", "cursor"),
        (f"cursor={CURSOR[:-4]}AAAAAAAA", "cursor"),
        (f"cursor={CURSOR[:-3]}B==", "cursor"),
        (f"cursor={CURSOR[:-3]}!A==", "cursor"),
        ("cursor=%ff%00", "cursor"),
        ("page=2", "page"),
    ],
)
async def test_invalid_parameters_of_a_page_are_422(
    client: httpx.AsyncClient, query: str, invalid_field: str
) -> None:
    response = await client.get(f"/items?{query}")
    assert read_invalid_fields(response) == [("query", invalid_field)]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_an_id_that_is_not_a_uuid_is_422(client: httpx.AsyncClient, method: str) -> None:
    response = await request_item(client, method, "/items/seven")
    assert read_invalid_fields(response) == [("path", "item_id")]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_unknown_query_parameters_are_ignored_for_one_item(
    client: httpx.AsyncClient, method: str
) -> None:
    response = await request_item(client, method, f"{ITEM}?utm_source=mail")
    assert response.status_code == 503


@pytest.mark.parametrize("content", [{"name": "x"}, {"name": ""}], ids=["valid", "invalid"])
async def test_a_replacement_without_if_match_is_428(
    client: httpx.AsyncClient, content: dict[str, str]
) -> None:
    assert (await client.put(ITEM, json=content)).status_code == 428


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("get", "/items", {"200", "422", "503"}),
        ("post", "/items", {"201", "400", "409", "413", "415", "422", "503"}),
        ("get", "/items/{item_id}", {"200", "304", "404", "412", "422", "503"}),
        (
            "put",
            "/items/{item_id}",
            {"200", "400", "404", "412", "413", "415", "422", "428", "503"},
        ),
        ("delete", "/items/{item_id}", {"204", "404", "412", "422", "503"}),
    ],
)
def test_each_operation_documents_its_own_statuses(
    make_settings: MakeSettings, method: str, path: str, statuses: set[str]
) -> None:
    operation = create_app(make_settings()).openapi()["paths"][path][method]
    assert operation["responses"].keys() - {"default"} == statuses


def test_response_headers_are_documented(make_settings: MakeSettings) -> None:
    paths = create_app(make_settings()).openapi()["paths"]
    created = paths["/items"]["post"]["responses"]
    assert {"ETag", "Location"} <= created["201"]["headers"].keys()
    assert "Retry-After" in created["409"]["headers"]
    assert "Retry-After" in created["503"]["headers"]
    read = paths["/items/{item_id}"]["get"]["responses"]
    assert "ETag" in read["200"]["headers"]
    assert "ETag" in read["304"]["headers"]


def test_the_schemas_have_examples(make_settings: MakeSettings) -> None:
    schemas = create_app(make_settings()).openapi()["components"]["schemas"]
    for schema in ("ItemContent", "Item"):
        properties = schemas[schema]["properties"]
        assert "Lamp" in properties["name"]["examples"]
        assert "For the desk." in str(properties["description"])
