"""WebSockets get the dependencies, and each error becomes a response or a close code.

The tests call the application without a server: no library for WebSockets is installed.
"""

import json
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, WebSocket

from fastapi_k8s.dependencies import DatabaseDep, DrainingDep, SettingsDep
from fastapi_k8s.errors import ProblemError, reason_phrase
from fastapi_k8s.main import create_app
from tests.conftest import LogLines, MakeSettings

RESPONSE_EXTENSION: dict[str, dict[str, str]] = {"websocket.http.response": {}}
"""Uvicorn offers it: an application may respond instead of accepting a connection."""


@pytest.fixture
def app(make_settings: MakeSettings) -> FastAPI:
    """The application with WebSockets that fail before and after they are accepted."""
    app = create_app(make_settings())

    @app.websocket("/state")
    async def send_state(socket: WebSocket, draining: DrainingDep, settings: SettingsDep) -> None:
        await socket.accept()
        await socket.send_json([draining.is_set(), settings.drain_seconds])

    @app.websocket("/forbidden")
    async def forbid(socket: WebSocket, accept: bool = False) -> None:
        if accept:
            await socket.accept()
        raise ProblemError(403, "You may not listen.", {"X-Reason": "test"})

    @app.websocket("/failed")
    async def accept_and_fail(socket: WebSocket) -> None:
        await socket.accept()
        raise HTTPException(500)

    @app.websocket("/teapot")
    async def brew(socket: WebSocket) -> None:
        raise HTTPException(418, {"short": "and stout"})

    @app.websocket("/unavailable")
    async def use_database(socket: WebSocket, database: DatabaseDep, accept: bool = False) -> None:
        if accept:
            await socket.accept()
        async with database.connection():
            raise AssertionError("there is no database")

    @app.websocket("/closed")
    async def fail_after_the_close(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()
        raise HTTPException(404)

    @app.websocket("/broken")
    async def fail(socket: WebSocket) -> None:
        raise ValueError("hidden")

    return app


async def connect(app: FastAPI, path: str, **scope: Any) -> list[dict[str, Any]]:
    """Connect to a path with an optional query, and return what the application sends."""
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        messages.append(message)

    path, _, query = path.partition("?")
    async with app.router.lifespan_context(app) as state:
        scope = {
            "type": "websocket",
            "path": path,
            "headers": [(b"x-request-id", b"abc")],
            "query_string": query.encode(),
            "state": state,
            **scope,
        }
        await app(scope, receive, send)
    return messages


def lines_of_errors(log_lines: LogLines) -> list[dict[str, Any]]:
    return [line for line in log_lines() if line["logger"] == "fastapi_k8s.errors"]


async def test_a_websocket_gets_the_dependencies_too(app: FastAPI) -> None:
    messages = await connect(app, "/state")
    assert [message["type"] for message in messages][:2] == ["websocket.accept", "websocket.send"]
    assert messages[1]["text"] == "[false,0.0]"


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/forbidden", 403, "You may not listen."),
        ("/unavailable", 503, "The database is unavailable."),
    ],
)
async def test_an_error_before_the_connection_is_accepted_is_a_response(
    app: FastAPI, path: str, status: int, detail: str
) -> None:
    start, body = await connect(app, path, extensions=RESPONSE_EXTENSION)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert (b"content-type", b"application/problem+json") in start["headers"]
    assert ((b"x-reason", b"test") in start["headers"]) is (path == "/forbidden")
    assert body["type"] == "websocket.http.response.body"
    problem = json.loads(body["body"])
    assert (problem["detail"], problem["request_id"]) == (detail, "abc")


async def test_a_server_that_cannot_send_a_response_closes_the_connection(app: FastAPI) -> None:
    """It does so with status 403 if the connection was not accepted."""
    [message] = await connect(app, "/forbidden")
    assert message["type"] == "websocket.close"


async def test_a_response_has_a_detail_that_is_no_text_as_data(app: FastAPI) -> None:
    start, body = await connect(app, "/teapot", extensions=RESPONSE_EXTENSION)
    assert start["status"] == 418
    assert json.loads(body["body"])["data"] == {"short": "and stout"}


@pytest.mark.parametrize(
    ("path", "code", "status"),
    [("/forbidden", 1008, 403), ("/failed", 1011, 500), ("/unavailable", 1013, 503)],
)
async def test_an_error_after_the_connection_was_accepted_is_a_close_code_and_a_log_line(
    app: FastAPI, log_lines: LogLines, path: str, code: int, status: int
) -> None:
    accept, close = await connect(app, f"{path}?accept=true", extensions=RESPONSE_EXTENSION)
    assert accept["type"] == "websocket.accept"
    assert close == {"type": "websocket.close", "code": code, "reason": reason_phrase(status)}
    [line] = lines_of_errors(log_lines)
    assert (line["level"], line["request_id"]) == ("WARNING", "abc")
    assert (line["message"], line["status"]) == ("WebSocket closed after an error", status)


async def test_an_error_after_the_close_is_logged_and_sends_nothing(
    app: FastAPI, log_lines: LogLines
) -> None:
    messages = await connect(app, "/closed")
    assert [message["type"] for message in messages] == ["websocket.accept", "websocket.close"]
    [line] = lines_of_errors(log_lines)
    assert line["status"] == 404


async def test_an_unhandled_error_reaches_the_server_which_logs_it(app: FastAPI) -> None:
    with pytest.raises(ValueError, match="hidden"):
        await connect(app, "/broken")
