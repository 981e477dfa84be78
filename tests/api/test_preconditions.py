"""If-Match and If-None-Match reach an operation with all their lines (RFC 9110, section 13)."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import Request, Response

from fastapi_k8s.conditional import (
    PreconditionsDep,
    RequiredPreconditionsDep,
    entity_tag,
    json_response_with_etag,
    read_preconditions,
)
from fastapi_k8s.main import create_app
from tests.conftest import MakeSettings, Serve

from .test_errors import read_problem

BODY = b'{"name":"Lamp"}'
ETAG = entity_tag(BODY)
OTHER_ETAG = entity_tag(b"{}")


@pytest.fixture
async def lamp(make_settings: MakeSettings, serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with the resource /lamp, which never changes."""
    app = create_app(make_settings())

    @app.get("/lamp")
    async def read_lamp(request: Request) -> Response:
        return json_response_with_etag(BODY, preconditions=read_preconditions(request))

    @app.put("/lamp")
    async def replace_lamp(preconditions: RequiredPreconditionsDep) -> None:
        preconditions.check(BODY)

    @app.delete("/lamp")
    async def delete_lamp(preconditions: PreconditionsDep) -> None:
        preconditions.check(BODY)

    async with serve(app) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "lines", "status"),
    [
        ("GET", [], 200),
        ("GET", [("If-None-Match", OTHER_ETAG)], 200),
        ("GET", [("If-None-Match", OTHER_ETAG), ("If-None-Match", ETAG)], 304),
        ("HEAD", [("If-None-Match", ETAG)], 304),
        ("GET", [("If-Match", OTHER_ETAG), ("If-Match", ETAG)], 200),
        ("GET", [("If-Match", OTHER_ETAG)], 412),
        ("GET", [("If-Match", OTHER_ETAG), ("If-None-Match", ETAG)], 412),
        ("PUT", [], 428),
        ("PUT", [("If-None-Match", "*")], 428),
        ("PUT", [("If-Match", OTHER_ETAG), ("If-Match", ETAG)], 200),
        ("PUT", [("If-Match", ETAG), ("If-None-Match", "*")], 412),
        ("DELETE", [], 200),
        ("DELETE", [("If-Match", OTHER_ETAG)], 412),
        ("DELETE", [("If-None-Match", OTHER_ETAG), ("If-None-Match", ETAG)], 412),
    ],
)
async def test_all_lines_are_evaluated(
    lamp: httpx.AsyncClient, method: str, lines: list[tuple[str, str]], status: int
) -> None:
    response = await lamp.request(method, "/lamp", headers=lines)
    assert response.status_code == status
    if status >= 400:
        read_problem(response, status)
