"""Every response has the security headers, whatever sends it: a route, an error or the protocol."""

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.routing import iter_route_contexts

from fastapi_k8s.conditional import json_response_with_etag, read_preconditions
from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve

from .conftest import MAX_BODY_SIZE, router

ORIGIN = "https://app.example.com"
PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT"}
JSON = {"Content-Type": "application/json"}
VALID_THING = {"size": {"width": 1}}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PATHS_WITH_OWN_HEADERS = re.compile("/docs.*|/tagged|/own")
DEFAULT_HEADERS = {
    "cache-control": ["no-store"],
    "content-security-policy": ["default-src 'none'; frame-ancestors 'none'"],
    "x-content-type-options": ["nosniff"],
}
REFUSED_HEADS = {
    400: b"GET /health HTTP/1.1\r\n\r\n",
    408: b"GET /health HTTP/1.1\r\n",
    414: b"GET /" + b"x" * 5000,
    431: b"GET /health HTTP/1.1\r\nHost: api\r\nX: " + b"x" * 9000,
    501: b"GET /health HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: gzip\r\n\r\n",
    505: b"GET /health HTTP/2.0\r\nHost: api\r\n\r\n",
}
"""Heads that the HTTP protocol refuses without calling the application."""


def read_security_headers(response: httpx.Response) -> dict[str, list[str]]:
    """All values of the headers that are in DEFAULT_HEADERS."""
    return {name: response.headers.get_list(name) for name in DEFAULT_HEADERS}


@pytest.fixture
def app(make_settings: MakeSettings) -> FastAPI:
    """The application with `/things` and with routes that set the headers themselves."""
    app = create_app(
        make_settings(cors_origins=ORIGIN, max_body_size=MAX_BODY_SIZE, request_read_timeout=1)
    )
    app.include_router(router)

    @app.get("/tagged")
    async def get_tagged(request: Request) -> Response:
        return json_response_with_etag(b"{}", preconditions=read_preconditions(request))

    @app.get("/own")
    async def get_own() -> Response:
        headers = {"Cache-Control": "max-age=60", "Content-Security-Policy": "default-src 'self'"}
        return Response(headers=headers)

    return app


@pytest.fixture
async def client(app: FastAPI, serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(app) as client:
        yield client


@pytest.mark.usefixtures("log_lines")
async def test_every_method_of_every_route_responds_with_the_default_headers(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    """Success, 404, 405, 422, 428, 500 without a handler, and 503 without a database."""
    statuses = set()
    for route in iter_route_contexts(app.routes):
        path = re.sub(r"{\w+}", "7", route.path or "")
        if PATHS_WITH_OWN_HEADERS.fullmatch(path):
            continue
        for method in METHODS:
            async with client.stream(method, path) as response:
                statuses.add(response.status_code)
                assert read_security_headers(response) == DEFAULT_HEADERS, f"{method} {path}"
    assert statuses >= {200, 405, 422, 500, 503}


@pytest.mark.parametrize(
    ("status", "method", "path", "options"),
    [
        (200, "OPTIONS", "/things", {"headers": PREFLIGHT}),
        (201, "POST", "/things", {"json": VALID_THING}),
        (400, "OPTIONS", "/things", {"headers": {**PREFLIGHT, "Origin": "https://other.example"}}),
        (400, "POST", "/things", {"headers": JSON, "content": b"{"}),
        (404, "GET", "/unknown", {}),
        (405, "POST", "/docs", {}),
        (413, "POST", "/things", {"content": b"x" * (MAX_BODY_SIZE + 1)}),
        (415, "POST", "/things", {"content": b"x"}),
        (422, "POST", "/things", {"json": {}}),
        (428, "PUT", "/things/7", {"json": VALID_THING}),
    ],
)
async def test_errors_and_preflight_responses_have_the_default_headers(
    client: httpx.AsyncClient, status: int, method: str, path: str, options: dict[str, Any]
) -> None:
    response = await client.request(method, path, **options)
    assert response.status_code == status
    assert read_security_headers(response) == DEFAULT_HEADERS


@pytest.mark.parametrize(("status", "head"), REFUSED_HEADS.items(), ids=str)
async def test_a_head_that_the_protocol_refuses_gets_the_default_headers(
    client: httpx.AsyncClient, status: int, head: bytes
) -> None:
    port = urlsplit(str(client.base_url)).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    writer.close()
    assert lines[0].startswith(b"HTTP/1.1 %d " % status)
    for name, [value] in DEFAULT_HEADERS.items():
        assert lines.count(f"{name}: {value}".encode()) == 1


async def test_the_response_to_a_late_request_has_the_default_headers(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings(request_timeout=0.1))

    @app.get("/late")
    async def wait_forever() -> None:
        await asyncio.Event().wait()

    async with serve(app) as client:
        response = await client.get("/late")
    assert response.status_code == 503
    assert read_security_headers(response) == DEFAULT_HEADERS


async def test_a_response_with_an_etag_may_be_stored_by_the_client_and_has_to_be_validated(
    client: httpx.AsyncClient,
) -> None:
    """304 has the same headers, which replace those that the client has stored."""
    expected = {**DEFAULT_HEADERS, "cache-control": ["private, no-cache"]}
    full = await client.get("/tagged")
    assert (full.status_code, read_security_headers(full)) == (200, expected)
    short = await client.get("/tagged", headers={"If-None-Match": full.headers["etag"]})
    assert (short.status_code, read_security_headers(short)) == (304, expected)


async def test_a_response_can_replace_the_default_headers(client: httpx.AsyncClient) -> None:
    assert read_security_headers(await client.get("/own")) == {
        "cache-control": ["max-age=60"],
        "content-security-policy": ["default-src 'self'"],
        "x-content-type-options": ["nosniff"],
    }


class PageParser(HTMLParser):
    """Collects what a page loads, and its inline scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline_scripts: list[str] = []
        self._is_inline = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        url = dict(attrs).get("src") or dict(attrs).get("href")
        self._is_inline = tag == "script" and url is None
        if url is not None:
            self.urls.append(url)

    def handle_data(self, data: str) -> None:
        if self._is_inline:
            self.inline_scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._is_inline = False


@pytest.mark.parametrize("path", ["/docs", "/docs/oauth2-redirect"])
@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_the_policy_of_a_page_allows_exactly_what_the_page_contains(
    app: FastAPI, serve: Serve, path: str, root_path: str
) -> None:
    async with serve(app, root_path=root_path) as client:
        response = await client.get(path)
    page = PageParser()
    page.feed(response.text)
    [policy] = response.headers.get_list("content-security-policy")
    directives = {}
    for directive in policy.split("; "):
        name, *sources = directive.split(" ")
        directives[name] = set(sources)
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in page.inline_scripts
    }
    assert len(hashes) == 1
    assert directives == {
        "default-src": {"'none'"},
        "script-src": {"'self'"} | hashes,
        "style-src": {"'self'"},
        "img-src": {"'self'", "data:"},
        "connect-src": {"'self'"},
        "base-uri": {"'none'"},
        "form-action": {"'none'"},
        "frame-ancestors": {"'none'"},
    }
    for url in page.urls:
        assert url.startswith(f"{root_path}/docs/")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
