"""Problem details (RFC 9457): the model, the response, and the handlers of exceptions."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROBLEM_MEDIA_TYPE = "application/problem+json"
ALLOW_CANDIDATES = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
REASON_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""The names of RFC 9110. Python 3.11 and 3.12 have the older ones."""

IF_MATCH_LOC = ("header", "If-Match")
"""The location (`loc`) of FastAPI's error for a missing If-Match."""


class InvalidField(BaseModel):
    """A field of the request that is invalid."""

    location: str = Field(serialization_alias="in", examples=["body"])
    field: str = Field(
        description="The name of the field, with dots between nested names.", examples=["name"]
    )
    detail: str = Field(examples=["String should have at least 1 character"])


class Problem(BaseModel):
    """An error (RFC 9457). `errors` lists the invalid fields of a request; else it is absent."""

    type: str = "about:blank"
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The request has 1 invalid field."])
    instance: str = Field(description="The path of the request.", examples=["/path"])
    request_id: str = Field(examples=["0b0e6cf21b1f4c0aa3f5cbb7b1a2e6d4"])
    errors: list[InvalidField] | None = None


class ProblemError(HTTPException):
    """An error that becomes a response: a status, a sentence and optional headers."""


def reason_phrase(status: int) -> str:
    """The name of an HTTP status, such as `Not Found`."""
    return REASON_PHRASES.get(status) or HTTPStatus(status).phrase


def problem_response(
    scope: Scope,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    errors: list[InvalidField] | None = None,
) -> Response:
    """Problem details as the response to the request of `scope`, which must have a request id."""
    problem = Problem(
        title=reason_phrase(status),
        status=status,
        detail=detail,
        instance=quote(scope["path"]),
        request_id=scope["request_id"],
        errors=errors,
    )
    body = problem.model_dump_json(by_alias=True, exclude_none=True)
    response = Response(body, status, headers, media_type=PROBLEM_MEDIA_TYPE)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # On a keep-alive connection the server would have to read the rest of the body first.
        response.headers["Connection"] = "close"
    return response


def add_exception_handlers(app: FastAPI) -> None:
    """Answer each exception that has a status, and each invalid request, with problem details."""

    @app.exception_handler(HTTPException)
    async def handle_http_exception(request: Request, error: HTTPException) -> Response:
        headers = error.headers
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # Starlette lists the methods of the first matching route only.
            headers = {"Allow": ", ".join(_allowed_methods(request))}
        return problem_response(request.scope, error.status_code, error.detail, headers)

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(request: Request, error: RequestValidationError) -> Response:
        return _invalid_request_response(request.scope, error)


def _allowed_methods(request: Request) -> list[str]:
    """All methods that the path supports (RFC 9110, section 15.5.6)."""
    methods = []
    for method in ALLOW_CANDIDATES:
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            methods.append(method)
    return methods


def _invalid_request_response(scope: Scope, error: RequestValidationError) -> Response:
    errors = error.errors()
    first = errors[0]
    if first["type"] == "json_invalid":
        reason = first["ctx"]["error"]
        return problem_response(scope, 400, f"The body is not JSON: {reason}.")
    if any(each["type"] == "missing" and each["loc"] == IF_MATCH_LOC for each in errors):
        return problem_response(scope, 428, "Send If-Match with the ETag of the version you read.")
    if isinstance(error.body, bytes):
        # FastAPI parses JSON only: a body of another media type is still bytes here.
        return problem_response(scope, 415, "Send the body as Content-Type: application/json.")
    fields = [_invalid_field(each) for each in errors]
    noun = "field" if len(fields) == 1 else "fields"
    detail = f"The request has {len(fields)} invalid {noun}."
    return problem_response(scope, 422, detail, errors=fields)


def _invalid_field(error: Mapping[str, Any]) -> InvalidField:
    location, *path = error["loc"]
    return InvalidField(
        location=location,
        field=_without_surrogates(".".join(str(name) for name in path)),
        detail=_without_surrogates(error["msg"].removeprefix("Value error, ")),
    )


def _without_surrogates(text: str) -> str:
    """Escape lone surrogates, which a client can send in JSON and UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()


class ContentTooLargeMiddleware:
    """Replaces the text/plain 413 of Starlette with problem details.

    If Content-Length exceeds `max_body_size`, Starlette sends its own 413 and discards the response
    of the exception handler. A body without Content-Length is counted as it arrives: FastAPI then
    raises an `HTTPException`, and the response of its handler needs no replacement.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _declares_length(scope):
            await self._app(scope, receive, send)
            return
        is_replaced = False

        async def send_or_replace(message: Message) -> None:
            nonlocal is_replaced
            if is_replaced:
                return
            if _is_plain_413(message):
                is_replaced = True
                response = problem_response(scope, 413, reason_phrase(413))
                await response(scope, receive, send)
            else:
                await send(message)

        await self._app(scope, receive, send_or_replace)


def _declares_length(scope: Scope) -> bool:
    return any(name == b"content-length" for name, _ in scope["headers"])


def _is_plain_413(message: Message) -> bool:
    if message["type"] != "http.response.start":
        return False
    if message["status"] != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return False
    return (b"content-type", PROBLEM_MEDIA_TYPE.encode()) not in message["headers"]
