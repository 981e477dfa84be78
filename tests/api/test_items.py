"""The items API as far as it goes without a database: what it refuses, and how it is described.

Whatever is valid gets 503 here.
"""

from typing import Any

import httpx
import pytest

from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings

ITEM = "/items/019a0000-0000-7000-8000-000000000000"
NAME_TOO_LONG = {"name": "x" * 201}
CURSOR = "AZoAAAAAcACAAAAAAAAAAA=="


def fields(answer: httpx.Response) -> list[tuple[str, str]]:
    assert answer.status_code == 422
    return [(each["in"], each["field"]) for each in answer.json()["errors"]]


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
    created = await client.post("/items", json=content)
    replaced = await client.put(ITEM, json=content, headers={"If-Match": "*"})
    for answer in (created, replaced):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/problem+json"
        assert "hidden" not in answer.text


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": 7}, "name"),
        (NAME_TOO_LONG, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x", "description": "x" * 10_001}, "description"),
        ({"name": "x", "description": "\0"}, "description"),
        ({"name": "x", "colour": "red"}, "colour"),
        ({"name": "x", "id": "7"}, "id"),
    ],
)
async def test_invalid_content_is_refused_by_its_field(
    client: httpx.AsyncClient, content: dict[str, Any], wrong: str
) -> None:
    created = await client.post("/items", json=content)
    replaced = await client.put(ITEM, json=content, headers={"If-Match": "*"})
    assert fields(created) == fields(replaced) == [("body", wrong)]


@pytest.mark.parametrize("field", ["name", "description"])
async def test_text_that_is_no_unicode_is_refused(client: httpx.AsyncClient, field: str) -> None:
    """PostgreSQL could not store a lone surrogate."""
    body = b'{"name": "x", "%b": "\\ud800"}' % field.encode()
    answer = await client.post("/items", content=body, headers={"Content-Type": "application/json"})
    assert fields(answer) == [("body", field)]


@pytest.mark.parametrize("key", ["k", "8e03978e-40d5-43dd-bc93-6894a57f9324", "~" * 255])
async def test_an_idempotency_key_of_printable_ascii_is_accepted(
    client: httpx.AsyncClient, key: str
) -> None:
    answer = await client.post("/items", json={"name": "x"}, headers={"Idempotency-Key": key})
    assert answer.status_code == 503


@pytest.mark.parametrize("key", [b"", b"a b", b"x" * 256, b"\xe9", b"a\tb"])
async def test_another_idempotency_key_is_refused(client: httpx.AsyncClient, key: bytes) -> None:
    answer = await client.post("/items", json={"name": "x"}, headers={b"Idempotency-Key": key})
    assert fields(answer) == [("header", "Idempotency-Key")]


@pytest.mark.parametrize("query", ["", "?limit=1", "?limit=100", f"?cursor={CURSOR}&limit=2"])
async def test_a_page_can_be_asked_for(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/items{query}")).status_code == 503


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=many", "limit"),
        ("cursor=", "cursor"),
        ("cursor=abc", "cursor"),
        ("cursor=YWJj", "cursor"),
        (f"cursor={CURSOR[:-4]}AAAAAAAA", "cursor"),
        ("cursor=%ff%00", "cursor"),
        ("page=2", "page"),
    ],
)
async def test_an_invalid_page_is_refused(
    client: httpx.AsyncClient, query: str, wrong: str
) -> None:
    assert fields(await client.get(f"/items?{query}")) == [("query", wrong)]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_an_id_that_is_not_a_uuid_is_refused(client: httpx.AsyncClient, method: str) -> None:
    content = b'{"name": "x"}' if method == "PUT" else b""
    headers = {"If-Match": "*", "Content-Type": "application/json"}
    answer = await client.request(method, "/items/seven", content=content, headers=headers)
    assert fields(answer) == [("path", "item_id")]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_unknown_query_parameters_are_ignored_for_one_item(
    client: httpx.AsyncClient, method: str
) -> None:
    content = b'{"name": "x"}' if method == "PUT" else b""
    headers = {"If-Match": "*", "Content-Type": "application/json"}
    url = f"{ITEM}?utm_source=mail"
    response = await client.request(method, url, content=content, headers=headers)
    assert response.status_code == 503  # it reached the database


async def test_a_replacement_without_if_match_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.put(ITEM, json={"name": "x"})).status_code == 428


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("get", "/items", {"200", "422", "503"}),
        ("post", "/items", {"201", "400", "409", "413", "415", "422", "503"}),
        ("get", "/items/{item_id}", {"200", "304", "404", "422", "503"}),
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


def test_the_description_carries_examples(make_settings: MakeSettings) -> None:
    schemas = create_app(make_settings()).openapi()["components"]["schemas"]
    for schema in ("ItemContent", "Item"):
        properties = schemas[schema]["properties"]
        assert "Lamp" in properties["name"]["examples"]
        assert "For the desk." in str(properties["description"])
