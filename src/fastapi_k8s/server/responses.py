"""How a response is sent: what is counted of it, and when it closes the connection.

The parts of Uvicorn that this module extends are not a public API, so pyproject.toml has an upper
limit for its version.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent, HTTPResponseStartEvent

LARGE_PIECE_BYTES = 64 * 1024
"""The size of a piece of a response from which on it is counted while it is in memory.

It is how much of smaller pieces Uvicorn writes before it waits for the client.
"""

BODILESS_STATUSES = {204, 304}


class ClosingTransport:
    """The transport of a request. Its `close` lets the client read the response first.

    After a large piece was written, `count_unsent` is called with its size.
    """

    __slots__ = ("_count_unsent", "_write", "close", "is_closing")

    def __init__(
        self,
        transport: asyncio.Transport,
        close: Callable[[], None],
        count_unsent: Callable[[int], None],
    ) -> None:
        self._write = transport.write
        self._count_unsent = count_unsent
        self.is_closing = transport.is_closing
        self.close = close

    def write(self, data: bytes) -> None:
        """Send a piece of the response."""
        self._write(data)
        if len(data) > LARGE_PIECE_BYTES:
            self._count_unsent(len(data))


class ClosingCycle(RequestResponseCycle):
    """A request with HEAD or HTTP/1.0. Without Content-Length, its response closes the connection.

    - HTTP/1.0 has no chunks (RFC 9112, section 6.1): the end of the connection is that of the body.
    - The response to HEAD is complete after its head. The body that the application still produces
      may have no end, and the next request of the connection would wait for it.
    """

    has_no_length = False

    async def send(self, message: "ASGISendEvent") -> None:
        """Send a part of the response."""
        if message["type"] == "http.response.start" and _has_body_without_length(message):
            self.has_no_length = True
            self.keep_alive = False
            self.chunked_encoding = False
            await super().send(message)
            if self.scope["method"] == "HEAD":
                self.transport.close()
            return
        if message["type"] == "http.response.body" and self.has_no_length:
            # Uvicorn refuses a body of another length.
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


def _has_body_without_length(message: "HTTPResponseStartEvent") -> bool:
    if message["status"] in BODILESS_STATUSES:
        return False
    return all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
