"""A limit on the size of a request's body, declared or in chunks."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ProblemError, respond

CLOSE = {"Connection": "close"}  # the rest of the body stays unread


class BodyLimit:
    """Pure ASGI. FastAPI's `max_body_size` answers in plain text."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"The body may have {self._limit} bytes."
        declared = dict(scope.get("headers", ())).get(b"content-length", 0)
        if int(declared) > self._limit:
            await respond(scope, 413, detail, CLOSE)(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise ProblemError(413, detail, CLOSE)
            return message

        await self._app(scope, receive_limited, send)
