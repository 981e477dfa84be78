"""FastAPI's OpenTelemetry: it sends traces if OTEL_EXPORTER_OTLP_ENDPOINT is set, or else is off.

The variables are those of OpenTelemetry's specification:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from urllib.parse import urlsplit

from fastapi.telemetry import TelemetryConfig

from .. import NAME

ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
EXTRA = "telemetry"
EXTRA_PACKAGES = {"opentelemetry", "requests"}
"""The packages of the extra that tracing.py imports."""


@dataclass(frozen=True)
class Telemetry:
    """The configuration for FastAPI, and a context in which the spans are sent."""

    config: TelemetryConfig
    export: Callable[[], AbstractAsyncContextManager[None]]
    is_on: bool


# Without this configuration, FastAPI would look for providers in the environment with each request,
# which takes 3 to 5 µs (docs/decisions/0024-cpu-time-per-request.md).
TELEMETRY_OFF = Telemetry(
    {"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    export=nullcontext,
    is_on=False,
)


def load_telemetry(app_version: str) -> Telemetry:
    """The telemetry that the environment asks for.

    Prints one line to standard error and exits with code 2 if a variable is invalid, or if the
    packages of the extra are missing.
    """
    if not _is_on():
        return TELEMETRY_OFF
    _check_variables()
    try:
        # While telemetry is off, its packages would only use memory.
        tracing = import_module(".tracing", __package__)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in EXTRA_PACKAGES:
            raise
        _exit(
            f"{ENDPOINT_VARIABLE} is set, but the extra `{EXTRA}` is not installed:"
            f" build the image with `make docker-build EXTRAS={EXTRA}`,"
            f" or install it with `uv sync --extra {EXTRA}`"
        )
    telemetry: Telemetry = tracing.create_telemetry(app_version)
    return telemetry


def _is_on() -> bool:
    return (
        bool(os.environ.get(ENDPOINT_VARIABLE))
        and os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() != "none"
    )


def _check_variables() -> None:
    """Exit if the exporter could never send a span. It would only log an error for each batch."""
    url = urlsplit(os.environ[ENDPOINT_VARIABLE])
    if url.scheme not in {"http", "https"} or not url.hostname:
        _exit(f"{ENDPOINT_VARIABLE} must be a URL such as http://collector:4318")
    for variable in PROTOCOL_VARIABLES:
        if os.environ.get(variable, PROTOCOL) not in {"", PROTOCOL}:
            _exit(f"{variable} must be {PROTOCOL}")


def _exit(message: str) -> None:
    print(f"{NAME}: {message}", file=sys.stderr)
    sys.exit(2)
