"""Warnings about errors that every request has during an outage: at most one a second."""

import logging
from collections import Counter
from time import monotonic

LOG_INTERVAL_SECONDS = 1.0
"""How often each type of error is logged."""


class ErrorLog:
    """Logs `message` with the error, each type of error at most once per LOG_INTERVAL_SECONDS."""

    def __init__(self, logger: logging.Logger, message: str) -> None:
        self._logger = logger
        self._message = message
        self._silent_until: dict[type[Exception], float] = {}
        self._suppressed: Counter[type[Exception]] = Counter()

    def warn(self, error: Exception) -> None:
        """Log the error, and how many of its type were not logged since the previous line."""
        kind = type(error)
        now = monotonic()
        if now < self._silent_until.get(kind, 0):
            self._suppressed[kind] += 1
            return
        self._silent_until[kind] = now + LOG_INTERVAL_SECONDS
        text = str(error) or "no response in time"  # a TimeoutError has no text
        fields = {
            "error": f"{kind.__name__}: {text}",
            "suppressed": self._suppressed.pop(kind, 0),
        }
        self._logger.warning(self._message, extra=fields)
