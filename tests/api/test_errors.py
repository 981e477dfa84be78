"""Whatever is wrong with a request, the answer is problem details (RFC 9457)."""

from typing import Any

import httpx
import pytest

JSON = {"Content-Type": "application/json"}


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The members of an answer that must be problem details."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["type"] == "about:blank"
    assert found["status"] == status
    assert found["instance"] == answer.request.url.raw_path.decode().partition("?")[0]
    assert found["request_id"] == answer.headers["x-request-id"]
    assert found["title"]
    assert found["detail"]
    return found


def fields(answer: httpx.Response) -> set[tuple[str, str]]:
    """Where an invalid request is wrong."""
    return {(each["in"], each["field"]) for each in problem(answer, 422)["errors"]}


@pytest.mark.parametrize("path", ["/nothing", "/things/", "//things", "/%F0%9F%92%A1/%00"])
async def test_an_unknown_path_is_404(things: httpx.AsyncClient, path: str) -> None:
    answer = await things.get(f"{path}?hidden")
    assert problem(answer, 404)["title"] == "Not Found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/openapi.json", "GET, HEAD"),
        ("PATCH", "/things", "GET, POST"),
        ("PATCH", "/things/7", "DELETE, GET, PUT"),
        ("OPTIONS", "/things/7", "DELETE, GET, PUT"),
    ],
)
async def test_a_wrong_method_is_405_with_every_right_one(
    things: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await things.request(method, path)
    assert problem(answer, 405)["title"] == "Method Not Allowed"
    assert answer.headers["allow"] == allowed


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
    ids=["cut off", "wrong quotes", "deep", "huge number", "not UTF-8", "not text"],
)
async def test_a_body_that_is_not_json_is_400(things: httpx.AsyncClient, body: bytes) -> None:
    answer = await things.post("/things", content=body, headers=JSON)
    assert problem(answer, 400)["title"] == "Bad Request"


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
    answer = await things.post("/things", content=b'{"size":{"width":1}}', headers=headers)
    assert "application/json" in problem(answer, 415)["detail"]


async def test_each_invalid_field_is_named(things: httpx.AsyncClient) -> None:
    body = {"size": {"width": "wide"}, "colour": 1}
    answer = await things.put("/things/x", json=body, headers={"If-Match": "*"})
    assert fields(answer) == {
        ("path", "thing_id"),
        ("body", "size.width"),
        ("body", "colour"),
    }
    assert "3 invalid fields" in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"NaN"])
async def test_a_body_of_another_shape_is_invalid_as_a_whole(
    things: httpx.AsyncClient, body: bytes
) -> None:
    answer = await things.post("/things", content=body, headers=JSON)
    assert fields(answer) == {("body", "")}


async def test_a_key_that_is_no_unicode_is_invalid(things: httpx.AsyncClient) -> None:
    body = b'{"size": {"width": 1}, "\\ud800": 1}'
    answer = await things.post("/things", content=body, headers=JSON)
    assert {place for place, _ in fields(answer)} == {"body"}


async def test_what_was_given_is_not_repeated(things: httpx.AsyncClient) -> None:
    answer = await things.post("/things", json={"size": {"width": "hidden"}})
    assert fields(answer) == {("body", "size.width")}
    assert "hidden" not in answer.text


@pytest.mark.parametrize("body", [{"size": {"width": 1}}, {"size": "invalid"}], ids=str)
async def test_a_missing_if_match_is_428_whatever_the_body(
    things: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await things.put("/things/7", json=body)
    assert problem(answer, 428)["title"] == "Precondition Required"


async def test_unknown_query_parameters_are_ignored_without_a_query_model(
    things: httpx.AsyncClient,
) -> None:
    body, headers = {"size": {"width": 1}}, {"If-Match": "*"}
    answer = await things.put("/things/7?utm_source=mail", json=body, headers=headers)
    assert answer.status_code == 200


async def test_a_valid_request_is_answered(things: httpx.AsyncClient) -> None:
    body = {"size": {"width": 1}}
    for headers in (JSON, {"Content-Type": "application/json; charset=utf-8"}):
        answer = await things.put("/things/7", json=body, headers={**headers, "If-Match": '"x"'})
        assert (answer.status_code, answer.json()) == (200, '"x"')
