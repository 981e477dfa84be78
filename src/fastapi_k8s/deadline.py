"""The deadline of a request: how long it may take until its response begins."""

import asyncio
from math import inf
from time import monotonic
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import problem_response

CHECK_INTERVAL_SECONDS = 0.1
"""How often the deadlines are checked."""


class DeadlineMiddleware:
    """Cancels a request whose response has not begun after `timeout_seconds`, and answers 503.

    The time in which the server waits for the body does not count. It has its own limit, which is
    REQUEST_READ_TIMEOUT.

    All requests share a timer. One for each would cost 3 µs a request
    (docs/decisions/0020-request-deadline.md).
    """

    def __init__(self, app: ASGIApp, timeout_seconds: float) -> None:
        self._app = app
        self._timeout_seconds = timeout_seconds
        self._scopes: dict[asyncio.Task[Any], Scope] = {}
        self._timer_is_running = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None:
            await self._app(scope, receive, send)
            return

        async def receive_and_restart() -> Message:
            scope["deadline"] = inf
            message = await receive()
            scope["deadline"] = monotonic() + self._timeout_seconds
            return message

        scope["deadline"] = monotonic() + self._timeout_seconds
        self._scopes[task] = scope
        if not self._timer_is_running:
            self._start_timer()
        try:
            await self._app(scope, receive_and_restart, send)
        except asyncio.CancelledError:
            if "is_late" not in scope:
                raise  # the server shuts down
            task.uncancel()
            response = problem_response(
                scope, 503, "The request took too long.", {"Retry-After": "1"}
            )
            await response(scope, receive, send)
        finally:
            del self._scopes[task]

    def _start_timer(self) -> None:
        self._timer_is_running = True
        asyncio.get_running_loop().call_later(CHECK_INTERVAL_SECONDS, self._cancel_late_requests)

    def _cancel_late_requests(self) -> None:
        now = monotonic()
        for task, scope in self._scopes.items():
            # ObservabilityMiddleware records the status when the response begins.
            if now >= scope["deadline"] and "response_status" not in scope:
                scope["is_late"] = True
                scope["deadline"] = inf  # so that it is cancelled once
                task.cancel()
        if self._scopes:
            self._start_timer()
        else:
            self._timer_is_running = False
