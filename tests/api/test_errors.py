"""Every error response is problem details (RFC 9457), with the status for its cause."""

from typing import Any

import httpx
import pytest

JSON = {"Content-Type": "application/json"}
VALID_THING = {"size": {"width": 1}}


def read_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """Check that the response is problem details with `status`, and return its members."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == "about:blank"
    assert problem["status"] == status
    path, _, _ = response.request.url.raw_path.decode().partition("?")
    assert problem["instance"] == path
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    return problem


def read_invalid_fields(response: httpx.Response) -> set[tuple[str, str]]:
    """The location and the name of each invalid field of a 422."""
    errors = read_problem(response, 422)["errors"]
    return {(error["in"], error["field"]) for error in errors}


@pytest.mark.parametrize("path", ["/unknown", "/things/", "//things", "/%F0%9F%92%A1/%00"])
async def test_an_unknown_path_is_404(things: httpx.AsyncClient, path: str) -> None:
    response = await things.get(f"{path}?hidden")
    assert read_problem(response, 404)["title"] == "Not Found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/openapi.json", "GET, HEAD"),
        ("PATCH", "/things", "GET, HEAD, POST"),
        ("PATCH", "/things/7", "DELETE, GET, HEAD, PUT"),
        ("OPTIONS", "/things/7", "DELETE, GET, HEAD, PUT"),
    ],
)
async def test_an_unsupported_method_is_405_with_all_methods_in_allow(
    things: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await things.request(method, path)
    assert read_problem(response, 405)["title"] == "Method Not Allowed"
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{'size': 1}",
        b"[" * 100_000,
        b'{"size":' + b"1" * 5000 + b"}",
        b'{"size": "\xff"}',
        b"\x00",
    ],
    ids=["truncated", "single quotes", "deeply nested", "huge number", "not UTF-8", "not text"],
)
async def test_a_body_that_is_not_json_is_400(things: httpx.AsyncClient, body: bytes) -> None:
    response = await things.post("/things", content=body, headers=JSON)
    assert read_problem(response, 400)["title"] == "Bad Request"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "nonsense"},
    ],
)
async def test_a_body_of_another_media_type_is_415(
    things: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    response = await things.post("/things", content=b'{"size":{"width":1}}', headers=headers)
    assert "application/json" in read_problem(response, 415)["detail"]


async def test_a_422_lists_each_invalid_field(things: httpx.AsyncClient) -> None:
    body = {"size": {"width": "wide"}, "colour": 1}
    response = await things.put("/things/x", json=body, headers={"If-Match": "*"})
    assert read_invalid_fields(response) == {
        ("path", "thing_id"),
        ("body", "size.width"),
        ("body", "colour"),
    }
    assert "3 invalid fields" in response.json()["detail"]


async def test_the_detail_of_a_field_is_the_message_of_its_validator(
    things: httpx.AsyncClient,
) -> None:
    """Pydantic adds "Value error, " to the message of a validator."""
    response = await things.post("/things", json={"size": {"width": -1}})
    [error] = read_problem(response, 422)["errors"]
    assert error == {"in": "body", "field": "size.width", "detail": "must not be negative"}


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"NaN"])
async def test_a_body_that_is_not_an_object_is_invalid_as_a_whole(
    things: httpx.AsyncClient, body: bytes
) -> None:
    response = await things.post("/things", content=body, headers=JSON)
    assert read_invalid_fields(response) == {("body", "")}


async def test_a_key_that_is_not_valid_unicode_is_invalid(things: httpx.AsyncClient) -> None:
    body = b'{"size": {"width": 1}, "\\ud800": 1}'
    response = await things.post("/things", content=body, headers=JSON)
    assert {location for location, _ in read_invalid_fields(response)} == {"body"}


async def test_a_422_does_not_repeat_the_invalid_value(things: httpx.AsyncClient) -> None:
    response = await things.post("/things", json={"size": {"width": "hidden"}})
    assert read_invalid_fields(response) == {("body", "size.width")}
    assert "hidden" not in response.text


@pytest.mark.parametrize(
    ("path", "body", "media_type"),
    [
        ("/things/7", b'{"size": {"width": 1}}', "application/json"),
        ("/things/7", b'{"size": "invalid"}', "application/json"),
        ("/things/7", b"[]", "application/json"),
        ("/things/7", b"", "application/json"),
        ("/things/x", b'{"size": "invalid"}', "application/json"),
        ("/things/7", b'{"size": {"width": 1}}', "text/plain"),
        ("/things/7", b"{", "text/plain"),
    ],
    ids=[
        "valid",
        "invalid body",
        "not an object",
        "no body",
        "invalid body and path",
        "other media type",
        "other media type and not JSON",
    ],
)
async def test_a_missing_if_match_is_428_even_if_the_request_is_invalid_too(
    things: httpx.AsyncClient, path: str, body: bytes, media_type: str
) -> None:
    response = await things.put(path, content=body, headers={"Content-Type": media_type})
    problem = read_problem(response, 428)
    assert problem["title"] == "Precondition Required"
    assert "If-Match" in problem["detail"]
    assert "errors" not in problem


async def test_a_body_that_is_not_json_is_400_even_if_if_match_is_missing(
    things: httpx.AsyncClient,
) -> None:
    response = await things.put("/things/7", content=b"{", headers=JSON)
    assert read_problem(response, 400)["title"] == "Bad Request"


async def test_with_if_match_another_media_type_is_415(things: httpx.AsyncClient) -> None:
    headers = {"If-Match": "*", "Content-Type": "text/plain"}
    response = await things.put("/things/7", content=b'{"size":{"width":1}}', headers=headers)
    assert read_problem(response, 415)["title"] == "Unsupported Media Type"


async def test_unknown_query_parameters_are_ignored_without_a_query_model(
    things: httpx.AsyncClient,
) -> None:
    url = "/things/7?utm_source=mail"
    response = await things.put(url, json=VALID_THING, headers={"If-Match": "*"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "media_type", ["application/json", "application/json; charset=utf-8"], ids=str
)
async def test_a_valid_request_succeeds(things: httpx.AsyncClient, media_type: str) -> None:
    headers = {"Content-Type": media_type, "If-Match": '"x"'}
    response = await things.put("/things/7", json=VALID_THING, headers=headers)
    assert (response.status_code, response.json()) == (200, ['"x"'])
