"""Warnings during an outage: one a second and type of error, with the number of the others."""

import logging

import pytest

from fastapi_k8s import error_log
from fastapi_k8s.error_log import LOG_INTERVAL_SECONDS, ErrorLog


def test_each_type_of_error_is_logged_once_per_interval_with_the_number_of_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(error_log, "monotonic", lambda: now)
    outage = ErrorLog(logging.getLogger("test"), "outage")
    for number in range(3):
        outage.warn(ValueError(f"number {number}"))
    outage.warn(TimeoutError())
    now += LOG_INTERVAL_SECONDS
    outage.warn(ValueError("later"))
    outage.warn(ValueError("later"))
    lines = [(record.message, record.levelname) for record in caplog.records]
    assert lines == [("outage", "WARNING")] * 3
    fields = [
        (record.__dict__["error"], record.__dict__["suppressed"]) for record in caplog.records
    ]
    assert fields == [
        ("ValueError: number 0", 0),
        ("TimeoutError: no response in time", 0),
        ("ValueError: later", 2),
    ]
