"""A limit on the size of a request's body, declared or in chunks."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import respond

CLOSE = {"Connection": "close"}  # the rest of the body stays unread


class BodyLimit:
    """Pure ASGI. FastAPI's `max_body_size` answers in plain text."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._detail = f"The body may have {limit} bytes."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if int(Headers(scope=scope).get("content-length", "0")) > self._limit:
                await respond(scope, 413, self._detail, CLOSE)(scope, receive, send)
                return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                # FastAPI lets no other class through while it reads a body.
                raise HTTPException(413, self._detail, CLOSE)
            return message

        await self._app(scope, receive_limited, send)
