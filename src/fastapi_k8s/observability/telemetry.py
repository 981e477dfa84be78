"""FastAPI's OpenTelemetry: it sends traces if OTEL_EXPORTER_OTLP_ENDPOINT is set, or else is off.

The variables are those of OpenTelemetry's specification:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from fastapi.telemetry import TelemetryConfig

from .. import NAME, PROPAGATORS_ERROR

ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
EXPORTER_PREFIXES = ("OTEL_EXPORTER_OTLP", "OTEL_EXPORTER_OTLP_TRACES")
"""What the names of the exporter's variables begin with. The longer one is for traces only."""

PROTOCOL = "http/protobuf"
HEADER_PATTERN = re.compile(r"[A-Za-z0-9_.-]+[ \t]*=[^\x00-\x1f\",;\\\x7f-\U0010ffff]*")
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
    """The telemetry that the environment variables configure.

    Prints one line to standard error and exits with code 2 if a variable is invalid, or if the
    packages of the extra are missing.
    """
    if not _is_on():
        return TELEMETRY_OFF
    _check_variables()
    # Before create_telemetry(), which sets another one.
    variables = sorted(name for name in os.environ if name.startswith("OTEL_"))
    try:
        # While telemetry is off, its packages would only use memory.
        tracing = import_module(".tracing", __package__)
        telemetry: Telemetry = tracing.create_telemetry(app_version)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in EXTRA_PACKAGES:
            raise
        _exit(
            f"{ENDPOINT_VARIABLE} is set, but the extra `{EXTRA}` is not installed:"
            f" build the image with `make docker-build EXTRAS={EXTRA}`,"
            f" or install it with `uv sync --extra {EXTRA}`"
        )
    except ValueError as error:
        _exit(f"one of the variables {', '.join(variables)} is invalid: {error}")
    return telemetry


def _is_on() -> bool:
    return (
        bool(os.environ.get(ENDPOINT_VARIABLE))
        and os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() != "none"
    )


def _check_variables() -> None:
    """Exit if a variable is invalid.

    The exporter would only log an error for each batch, and would log a header that it cannot
    parse, which may be a token.
    """
    if PROPAGATORS_ERROR:
        _exit(f"OTEL_PROPAGATORS is invalid: {PROPAGATORS_ERROR}")
    for prefix in EXPORTER_PREFIXES:
        _check(f"{prefix}_ENDPOINT", _is_url, "a URL such as http://collector:4318")
        _check(f"{prefix}_PROTOCOL", _is_protocol, PROTOCOL)
        _check(f"{prefix}_HEADERS", _are_headers, "headers such as authorization=Bearer%20token")


def _check(variable: str, is_valid: Callable[[str], bool], expectation: str) -> None:
    value = os.environ.get(variable)
    if value and not is_valid(value):
        _exit(f"{variable} must be {expectation}")


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        has_host = bool(url.hostname) and url.port != 0
    except ValueError:  # for example, the port is not a number
        return False
    return url.scheme in {"http", "https"} and has_host and text.split() == [text]


def _is_protocol(text: str) -> bool:
    return text == PROTOCOL


def _are_headers(text: str) -> bool:
    headers = [header.strip() for header in text.split(",")]
    return all(_is_header(header) for header in headers if header)


def _is_header(text: str) -> bool:
    # The exporter decodes the value. It would log a value that cannot be sent, such as two lines.
    decoded_text = unquote(text).strip()
    is_sendable = decoded_text.isascii() and decoded_text.isprintable()
    return is_sendable and bool(HEADER_PATTERN.fullmatch(text))


def _exit(message: str) -> NoReturn:
    print(f"{NAME}: {message}", file=sys.stderr)
    sys.exit(2)
