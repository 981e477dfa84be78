"""Operations with `require_scope`: who may call them, and what everybody else gets."""

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest

from fastapi_k8s import NAME
from fastapi_k8s.auth import get_caller, require_scope
from fastapi_k8s.caller import Caller
from tests.api.auth_app import bearer, create_app_with_things, serving_things
from tests.conftest import LogLines, MakeSettings, Serve
from tests.issuer import AUDIENCE, SUBJECT, Issuer

ORIGIN = "https://app.example.com"
CHALLENGE = f'Bearer realm="{NAME}"'
INVALID_TOKEN = f'{CHALLENGE}, error="invalid_token"'
CALLER = "/things/caller"


@pytest.fixture
async def things(
    issuer: Issuer, make_settings: MakeSettings, serve: Serve
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application with `/things` that trusts the issuer."""
    async with serving_things(issuer, make_settings, serve, cors_origins=[ORIGIN]) as client:
        yield client


async def test_a_token_with_the_scopes_of_the_operation_is_accepted(
    things: httpx.AsyncClient, issuer: Issuer
) -> None:
    reader = bearer(issuer.sign(scope="things:read"))
    writer = bearer(issuer.sign(scope="other things:write things:read"))
    assert (await things.get("/things", headers=reader)).json() == ["thing"]
    assert (await things.post("/things", headers=writer)).json() == "created"


async def test_a_handler_gets_the_caller(things: httpx.AsyncClient, issuer: Issuer) -> None:
    token = issuer.sign(scope="a b", email="a@example.com")
    response = await things.get(CALLER, headers=bearer(token))
    assert response.json() == {"subject": SUBJECT, "scopes": ["a", "b"], "email": "a@example.com"}


@pytest.mark.parametrize("scope", [None, "", "things:write", "things", "things:read:all"])
async def test_a_token_without_a_scope_of_the_operation_gets_403(
    things: httpx.AsyncClient, issuer: Issuer, scope: str | None
) -> None:
    response = await things.post("/things", headers=bearer(issuer.sign(scope=scope)))
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"
    expected = f'{CHALLENGE}, error="insufficient_scope", scope="things:read things:write"'
    assert response.headers["www-authenticate"] == expected
    assert "things:read things:write" in response.json()["detail"]


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        ([], CHALLENGE),
        ([b""], CHALLENGE),
        ([b"Basic dXNlcjpwYXNzd29yZA=="], CHALLENGE),
        ([b"Bearer"], CHALLENGE),
        ([b"{token}"], CHALLENGE),
        ([b"Bearer {token}x"], INVALID_TOKEN),
        ([b"Bearer Bearer {token}"], INVALID_TOKEN),
        ([b"Bearer {token}, Bearer {token}"], INVALID_TOKEN),
        ([b"Bearer \xe9\xff"], INVALID_TOKEN),
        ([b'Bearer "{token}"'], INVALID_TOKEN),
        ([b"Bearer {token}", b"Bearer {token}"], INVALID_TOKEN),
        ([b"Basic dXNlcjpwYXNzd29yZA==", b"Bearer {token}"], INVALID_TOKEN),
        ([b"Bearer {token}", b"Basic dXNlcjpwYXNzd29yZA=="], INVALID_TOKEN),
    ],
)
async def test_a_request_without_exactly_one_valid_token_gets_401(
    things: httpx.AsyncClient, issuer: Issuer, authorization: list[bytes], challenge: str
) -> None:
    token = issuer.sign().encode()
    headers = [(b"Authorization", value.replace(b"{token}", token)) for value in authorization]
    response = await things.get(CALLER, headers=headers)
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"] == challenge
    assert response.json()["title"] == "Unauthorized"


async def test_the_response_says_that_the_token_has_expired(
    things: httpx.AsyncClient, issuer: Issuer
) -> None:
    response = await things.get(CALLER, headers=bearer(issuer.sign(exp=0)))
    assert response.json()["detail"] == "The access token has expired."


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
async def test_the_name_of_the_scheme_is_not_case_sensitive(
    things: httpx.AsyncClient, issuer: Issuer, scheme: str
) -> None:
    headers = {"Authorization": f"{scheme} {issuer.sign()}"}
    assert (await things.get(CALLER, headers=headers)).status_code == 200


async def test_a_token_that_is_larger_than_a_header_may_be_gets_431(
    things: httpx.AsyncClient, issuer: Issuer
) -> None:
    response = await things.get(CALLER, headers=bearer(issuer.sign(padding="x" * 10_000)))
    assert response.status_code == 431


async def test_head_requires_a_token_as_get_does(things: httpx.AsyncClient, issuer: Issuer) -> None:
    assert (await things.head(CALLER)).status_code == 401
    assert (await things.head(CALLER, headers=bearer(issuer.sign()))).status_code == 200


async def test_other_operations_require_no_token(things: httpx.AsyncClient) -> None:
    for path in ("/health", "/version", "/docs", "/openapi.json", "/metrics", "/text"):
        assert (await things.get(path)).status_code == 200
    assert (await things.get("/nothing")).status_code == 404
    assert (await things.put("/things")).status_code == 405


async def test_browsers_may_send_a_token_and_read_why_it_is_refused(
    things: httpx.AsyncClient,
) -> None:
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization",
    }
    preflight = await things.options(CALLER, headers=headers)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-headers"] == "authorization"
    response = await things.get(CALLER, headers={"Origin": ORIGIN})
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "WWW-Authenticate" in response.headers["access-control-expose-headers"].split(", ")


@pytest.mark.parametrize(("scope", "status"), [("things:read", 200), ("other", 403)])
async def test_the_log_lines_of_a_request_have_the_subject_and_not_the_token(
    things: httpx.AsyncClient, issuer: Issuer, log_lines: LogLines, scope: str, status: int
) -> None:
    token = issuer.sign(scope=scope, sub="user-7")
    assert (await things.get("/things", headers=bearer(token))).status_code == status
    await things.get("/things")
    lines = [line for line in log_lines() if line["message"] == "request"]
    assert [line["status"] for line in lines] == [status, 401]
    assert lines[0]["subject"] == "user-7"
    assert "subject" not in lines[1]
    text = str(log_lines())
    assert token not in text
    assert token.split(".")[2] not in text


async def test_a_line_that_a_handler_logs_has_the_subject(
    issuer: Issuer, make_settings: MakeSettings, serve: Serve, log_lines: LogLines
) -> None:
    settings = make_settings(jwt_issuer=issuer.url, jwt_audience=AUDIENCE)
    app = create_app_with_things(settings)

    @app.get("/logged")
    async def log_something(_: Annotated[Caller, require_scope()]) -> None:
        logging.getLogger("test").info("something")

    async with serve(app) as client:
        await client.get("/logged", headers=bearer(issuer.sign()))
    [line] = [line for line in log_lines() if line["message"] == "something"]
    assert line["subject"] == SUBJECT


def get_operation(document: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    operation: dict[str, Any] = document["paths"][path][method]
    return operation


async def test_the_document_has_the_scheme_the_scopes_and_the_errors(
    things: httpx.AsyncClient,
) -> None:
    """Swagger UI shows the button Authorize, and sends the token that the user enters there."""
    document = (await things.get("/openapi.json")).json()
    scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    assert document["components"]["securitySchemes"] == {"bearer": scheme}
    operation = get_operation(document, "post", "/things")
    assert operation["security"] == [{"bearer": ["things:read", "things:write"]}]
    assert get_operation(document, "get", CALLER)["security"] == [{"bearer": []}]
    for status, header in (
        ("401", "WWW-Authenticate"),
        ("403", "WWW-Authenticate"),
        ("503", "Retry-After"),
    ):
        response = operation["responses"][status]
        assert list(response["content"]) == ["application/problem+json"]
        assert set(response["headers"]) == {header, "X-Request-ID"}
    health = get_operation(document, "get", "/health")
    assert "security" not in health
    assert not {"401", "403"} & set(health["responses"])


async def test_without_an_issuer_every_operation_is_open(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app_with_things(make_settings())
    async with serve(app) as client:
        assert (await client.get("/things")).json() == ["thing"]
        assert (await client.get("/text")).text == "open"
        assert (await client.post("/things", headers=bearer("not valid"))).json() == "created"
        caller = (await client.get(CALLER)).json()
        operation = get_operation((await client.get("/openapi.json")).json(), "get", "/things")
    assert caller == {"subject": "", "scopes": [], "email": None}
    assert "security" not in operation


async def test_without_an_issuer_the_dependency_is_not_called(
    make_settings: MakeSettings, serve: Serve
) -> None:
    """It would cost each request several microseconds."""

    async def fail() -> None:
        raise AssertionError("the dependency is called")

    app = create_app_with_things(make_settings())
    app.dependency_overrides[get_caller] = fail
    async with serve(app) as client:
        assert (await client.get("/things")).status_code == 200
        assert (await client.get(CALLER)).status_code == 500


async def test_a_test_can_replace_the_caller(
    issuer: Issuer, make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app_with_things(make_settings(jwt_issuer=issuer.url, jwt_audience=AUDIENCE))
    app.dependency_overrides[get_caller] = lambda: Caller("", "somebody", frozenset("s"), {})
    async with serve(app) as client:
        assert (await client.get(CALLER)).json()["subject"] == "somebody"
