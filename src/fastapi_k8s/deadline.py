"""The deadline of a request: how long it may take until its response begins."""

import asyncio
import logging
from contextvars import Context, copy_context
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import problem_response

logger = logging.getLogger(__name__)

CHECK_INTERVAL_SECONDS = 0.1
"""How often the deadlines are checked."""


@dataclass(slots=True)
class RequestInProgress:
    """A request, and the time of `monotonic` until which its response has to begin.

    `late_response` sends the 503 to a request that is late.
    """

    scope: Scope
    receive: Receive
    send: Send
    context: Context
    deadline: float
    late_response: asyncio.Task[None] | None = None

    def is_late(self) -> bool:
        """Whether the deadline has passed before the response has begun."""
        # ObservabilityMiddleware records the status when the response begins.
        return monotonic() >= self.deadline and "response_status" not in self.scope

    async def respond(self) -> None:
        """Send the late response."""
        response = problem_response(
            self.scope, 503, "The request took too long.", {"Retry-After": "1"}
        )
        await response(self.scope, self.receive, self.send)


class DeadlineMiddleware:
    """Sends 503 if the response has not begun after `timeout_seconds`, and cancels the request.

    The time in which the server waits for the body does not count. It has its own limit, which is
    REQUEST_READ_TIMEOUT.

    All requests share a timer. A timer for each request would cost 3 µs
    (docs/decisions/0020-request-deadline.md).
    """

    def __init__(self, app: ASGIApp, timeout_seconds: float) -> None:
        self._app = app
        self._timeout_seconds = timeout_seconds
        self._requests: dict[asyncio.Task[Any], RequestInProgress] = {}
        self._timer_is_running = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None:
            await self._app(scope, receive, send)
            return
        deadline = monotonic() + self._timeout_seconds
        request = RequestInProgress(scope, receive, send, copy_context(), deadline)

        body_is_complete = False

        async def receive_and_extend_deadline() -> Message:
            nonlocal body_is_complete
            if body_is_complete:
                # The application waits until the client disconnects, possibly while it works on the
                # response. This time counts, or the deadline would never pass.
                return await receive()
            remaining_seconds = request.deadline - monotonic()
            request.deadline = inf
            try:
                message = await receive()
            finally:
                request.deadline = monotonic() + remaining_seconds
            body_is_complete = not message.get("more_body", False)
            return message

        self._requests[task] = request
        if not self._timer_is_running:
            self._start_timer()
        try:
            await self._app(scope, receive_and_extend_deadline, send)
        except asyncio.CancelledError:
            if request.late_response is None:
                raise  # the server shuts down
            task.uncancel()
            await request.late_response
        except Exception:
            if request.late_response is None:
                raise
            # The client has got the 503. With the exception, the server would close the connection.
            # An example is a handler that catches CancelledError and responds.
            logger.exception("the request continued after its deadline, and failed")
            await request.late_response
        finally:
            del self._requests[task]

    def _start_timer(self) -> None:
        self._timer_is_running = True
        asyncio.get_running_loop().call_later(CHECK_INTERVAL_SECONDS, self._end_late_requests)

    def _end_late_requests(self) -> None:
        for task, request in self._requests.items():
            if request.is_late():
                # In a task, because the request may need time to clean up after its cancellation.
                # In the context of the request, which has the fields of its log lines.
                request.late_response = asyncio.create_task(
                    request.respond(), context=request.context
                )
                request.deadline = inf
                task.cancel()
        if self._requests:
            self._start_timer()
        else:
            self._timer_is_running = False
