"""Problem details (RFC 9457): the model, the response, and the handlers of exceptions."""

import asyncio
import http.client
import logging
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from json import JSONDecodeError
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse
from fastapi.utils import is_body_allowed_for_status_code
from pydantic import BaseModel, Field
from pydantic_core import PydanticSerializationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.status import (
    WS_1008_POLICY_VIOLATION,
    WS_1011_INTERNAL_ERROR,
    WS_1013_TRY_AGAIN_LATER,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketState

from .routing import allowed_methods

logger = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE = "application/problem+json"
REASON_PHRASES = http.client.responses | {
    413: "Content Too Large",
    414: "URI Too Long",
    422: "Unprocessable Content",
}
"""The names of RFC 9110. Python 3.11 and 3.12 have the older ones."""

PLAIN_413_HEADERS = PlainTextResponse(REASON_PHRASES[413], 413).raw_headers
"""The headers of Starlette's 413, by which it differs from one of an operation."""

MAX_LISTED_ERRORS = 100
"""How many invalid fields a response lists. The body of a request can have 100 000."""

MAX_FIELD_LENGTH = 200
"""Characters of the name of a field. It can contain a key that is as long as the body."""

IF_MATCH_LOC = ("header", "If-Match")
"""The location (`loc`) of FastAPI's error for a missing If-Match."""


class InvalidField(BaseModel):
    """A field of the request that is invalid."""

    location: str = Field(serialization_alias="in", examples=["body"])
    field: str = Field(
        description="The name of the field, with dots between nested names. The rest of a name of "
        f"more than {MAX_FIELD_LENGTH} characters is omitted.",
        examples=["name"],
    )
    detail: str = Field(examples=["String should have at least 1 character"])


class Problem(BaseModel):
    """An error (RFC 9457). `errors` and `data` are absent if there are none."""

    type: str = "about:blank"
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The request has 1 invalid field."])
    instance: str = Field(description="The path of the request.", examples=["/path"])
    request_id: str = Field(examples=["0b0e6cf21b1f4c0aa3f5cbb7b1a2e6d4"])
    errors: list[InvalidField] | None = Field(
        None,
        description="The invalid fields of the request. If there are more than "
        f"{MAX_LISTED_ERRORS}, these are the first; `detail` has the number of all.",
        max_length=MAX_LISTED_ERRORS,
    )
    data: Any = Field(None, description="Further information about the error.")


class ProblemError(HTTPException):
    """An error that becomes a response: a status, a sentence and optional headers."""


def reason_phrase(status: int) -> str:
    """The name of an HTTP status, such as `Not Found`, or of its class if it has no name."""
    if status in REASON_PHRASES:
        return REASON_PHRASES[status]
    return "Client Error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "Server Error"


def problem_response(
    scope: Scope,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    errors: list[InvalidField] | None = None,
    *,
    data: Any = None,
) -> Response:
    """Problem details as the response to the request of `scope`, which must have a request id.

    The response has no body if `status` does not allow one, such as 304. What JSON cannot express
    in `data` is converted to text, and NaN and infinity to null.
    """
    if not is_body_allowed_for_status_code(status):
        return Response(status_code=status, headers=headers)
    problem = Problem(
        title=reason_phrase(status),
        status=status,
        detail=_without_surrogates(detail),
        instance=quote(scope["path"]),
        request_id=scope["request_id"],
        errors=errors,
        data=data,
    )
    try:
        body = problem.model_dump_json(by_alias=True, exclude_none=True, fallback=str)
    except PydanticSerializationError:
        # `data` contains bytes, a lone surrogate or a circular reference.
        problem.data = _without_surrogates(str(data))
        body = problem.model_dump_json(by_alias=True, exclude_none=True)
    response = Response(body, status, headers, media_type=PROBLEM_MEDIA_TYPE)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # On a keep-alive connection the server would have to read the rest of the body first.
        response.headers["Connection"] = "close"
    return response


def add_exception_handlers(app: FastAPI) -> None:
    """Answer each exception that has a status, and each invalid request, with problem details."""

    @app.exception_handler(HTTPException)
    async def handle_http_exception(
        request: Request | WebSocket, error: HTTPException
    ) -> Response | None:
        if isinstance(request, WebSocket) and not _may_respond(request):
            await _close_websocket(request, error)
            return None
        headers = error.headers
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # Starlette lists the methods of the first matching route only.
            methods = allowed_methods(request.app.routes, request.scope)
            if methods:
                headers = {"Allow": ", ".join(sorted(methods))}
        title = reason_phrase(error.status_code)
        # FastAPI accepts any value as the detail, but in problem details it is text.
        detail: Any = error.detail
        if isinstance(detail, str):
            return problem_response(request.scope, error.status_code, detail or title, headers)
        return problem_response(request.scope, error.status_code, title, headers, data=detail)

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(request: Request, error: RequestValidationError) -> Response:
        return _invalid_request_response(request.scope, error)


def _may_respond(socket: WebSocket) -> bool:
    """Whether a response can be sent, because the connection was not accepted yet."""
    has_extension = "websocket.http.response" in socket.scope.get("extensions", ())
    return has_extension and socket.application_state is WebSocketState.CONNECTING


async def _close_websocket(socket: WebSocket, error: HTTPException) -> None:
    """Close the connection with a code. If it was not accepted, the client gets 403."""
    status = error.status_code
    fields = {"status": status, "detail": error.detail}
    logger.warning("WebSocket closed after an error", extra=fields)
    with suppress(RuntimeError, WebSocketDisconnect):  # it is closed already
        await socket.close(_close_code(status), reason_phrase(status))


def _close_code(status: int) -> int:
    """The code for a WebSocket that is the closest to an HTTP status (RFC 6455, section 7.4.1)."""
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return WS_1013_TRY_AGAIN_LATER
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return WS_1008_POLICY_VIOLATION
    return WS_1011_INTERNAL_ERROR


def _invalid_request_response(scope: Scope, error: RequestValidationError) -> Response:
    cause = error.__cause__
    if isinstance(cause, JSONDecodeError):
        return problem_response(scope, 400, f"The body is not JSON: {cause.msg}.")
    errors = error.errors()
    if any(each["type"] == "missing" and each["loc"] == IF_MATCH_LOC for each in errors):
        return problem_response(scope, 428, "Send If-Match with the ETag of the version you read.")
    # FastAPI parses JSON only: a body of another media type is still bytes here.
    if isinstance(error.body, bytes) and any(_is_wrong_type_of_body(each) for each in errors):
        return problem_response(scope, 415, "Send the body as Content-Type: application/json.")
    noun = "field" if len(errors) == 1 else "fields"
    detail = f"The request has {len(errors)} invalid {noun}."
    fields = [_invalid_field(each) for each in errors[:MAX_LISTED_ERRORS]]
    return problem_response(scope, 422, detail, errors=fields)


def _is_wrong_type_of_body(error: Mapping[str, Any]) -> bool:
    """Whether the body is not an object, or not another type that an operation expects.

    The bytes that an operation accepts can be invalid too, for example too long.
    """
    kind: str = error["type"]
    location: str = error["loc"][0]
    return location == "body" and (kind == "missing" or kind.endswith("_type"))


def _invalid_field(error: Mapping[str, Any]) -> InvalidField:
    location, *path = error["loc"]
    return InvalidField(
        location=location,
        field=_without_surrogates(".".join(str(name) for name in path)[:MAX_FIELD_LENGTH]),
        detail=_without_surrogates(error["msg"].removeprefix("Value error, ")),
    )


def _without_surrogates(text: str) -> str:
    """Escape lone surrogates, which a client can send in JSON and UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()


class ErrorMiddleware:
    """Answers with problem details where no exception handler can.

    - Exceptions that no handler handles: 500, without the text of the exception, which is logged.
    - A request that the shutdown cancels, because it takes too long: 503.
    - A Content-Length above `max_body_size`: Starlette sends its own 413 in text/plain and discards
      the response of the handler. A body without Content-Length needs no replacement.

    `ObservabilityMiddleware` records in the scope whether the response has begun. A second wrapper
    around `send` would cost each request 1 µs.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _declares_length(scope):
            send = _replace_plain_413(scope, receive, send)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if "response_is_complete" in scope:
                # The access log line, which has the same request id, was written before.
                logger.error("background task cancelled")  # noqa: TRY400 (the stack does not help)
            if "response_status" in scope:
                raise
            response = problem_response(
                scope, 503, "The server is shutting down.", {"Retry-After": "1"}
            )
            await response(scope, receive, send)
        except Exception:
            has_begun = "response_status" in scope
            if has_begun and "response_is_complete" not in scope:
                # The server logs the exception and closes the connection, so that the client sees
                # that the response is incomplete.
                raise
            logger.exception("unhandled error")
            if not has_begun:
                response = problem_response(scope, 500, "An unexpected error occurred.")
                await response(scope, receive, send)


def _declares_length(scope: Scope) -> bool:
    return b"content-length" in dict(scope["headers"])


def _replace_plain_413(scope: Scope, receive: Receive, send: Send) -> Send:
    """A `send` that sends problem details instead of Starlette's 413 in text/plain."""
    is_replaced = False

    async def send_or_replace(message: Message) -> None:
        nonlocal is_replaced
        if is_replaced:
            return
        if _is_plain_413(message):
            is_replaced = True
            await problem_response(scope, 413, reason_phrase(413))(scope, receive, send)
        else:
            await send(message)

    return send_or_replace


def _is_plain_413(message: Message) -> bool:
    if message["type"] != "http.response.start":
        return False
    if message["status"] != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return False
    return message.get("headers") == PLAIN_413_HEADERS


class ProblemCORSMiddleware(CORSMiddleware):
    """Refuses a preflight request with problem details instead of text/plain."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The response to a preflight request."""
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        return _RefusedPreflight(response)


class _RefusedPreflight(Response):
    """Problem details with the CORS headers of another response."""

    def __init__(self, plain_response: Response) -> None:
        super().__init__(plain_response.body, plain_response.status_code)
        del plain_response.headers["Content-Length"], plain_response.headers["Content-Type"]
        self.cors_headers = plain_response.headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"{bytes(self.body).decode()}."
        response = problem_response(scope, self.status_code, detail, self.cors_headers)
        await response(scope, receive, send)
