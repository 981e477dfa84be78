"""The one place that turns errors into problem details (RFC 9457)."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}  # Python 3.11 has older ones
IF_MATCH_MISSING = {"in": "header", "field": "if-match", "detail": "Field required"}


class Problem(BaseModel):
    """What the client is told about an error. `errors` names each bad field of the request."""

    type: str = "about:blank"
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The request has 1 invalid field."])
    instance: str = Field(examples=["/path"])
    request_id: str = Field(examples=["0b0e6cf21b1f4c0aa3f5cbb7b1a2e6d4"])
    errors: list[dict[str, str]] = Field([], examples=[[IF_MATCH_MISSING]])


RESPONSE = {  # for OpenAPI: it documents every error of an operation
    "description": "What went wrong.",
    "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
}


class ProblemError(HTTPException):
    """An outcome that the client is told about: its status, a sentence, headers."""


def respond(
    scope: Scope, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Problem details as the answer to the request of `scope`, with `more` members."""
    members = {
        "type": "about:blank",
        "title": TITLES.get(status) or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": quote(scope["path"]),
        "request_id": scope["request_id"],
        **more,
    }
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers = {"Connection": "close"}  # or the rest of the body would have to be read
    # Escaped to ASCII: a client's own words may hold lone surrogates, which UTF-8 cannot carry.
    return Response(json.dumps(members), status, headers, media_type="application/problem+json")


def refuse_query(request: Request) -> None:
    """Raise RequestValidationError for each query parameter, where an operation has none."""
    if request.scope["query_string"] and request.query_params:
        wrong = {"type": "extra_forbidden", "msg": "Extra inputs are not permitted"}
        raise RequestValidationError([{**wrong, "loc": ("query", n)} for n in request.query_params])


async def _on_http_exception(request: Request, error: Any) -> Response:
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette names the methods of one matching route; RFC 9110 wants all of them.
        routes, scopes = request.app.routes, [{**request.scope, "method": m} for m in METHODS]
        served = [s for s in scopes if any(r.matches(s)[0] is Match.FULL for r in routes)]
        headers = {"Allow": ", ".join(scope["method"] for scope in served)}
    return respond(request.scope, error.status_code, error.detail, headers)


async def _on_invalid_request(request: Request, error: Any) -> Response:
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        return respond(request.scope, 400, f"The body is not JSON: {found[0]['ctx']['error']}.")
    if isinstance(error.body, bytes):
        # FastAPI does not parse a body of another media type: it arrives here as it came.
        return respond(request.scope, 415, "Send the body as Content-Type: application/json.")
    errors = []
    for each in found:
        place, *path = each["loc"]
        errors.append({"in": place, "field": ".".join(map(str, path)), "detail": each["msg"]})
    if errors == [IF_MATCH_MISSING]:
        return respond(request.scope, 428, "Send If-Match with the ETag of the version you read.")
    detail = f"The request has {len(errors)} invalid field{'s' * (len(errors) > 1)}."
    return respond(request.scope, 422, detail, errors=errors)


HANDLERS: dict[Any, Any] = {
    HTTPException: _on_http_exception,
    RequestValidationError: _on_invalid_request,
}
