"""The head of a request: what it may contain (RFC 9112, section 3), and how large it may be.

The functions raise ProblemError, which becomes the response.
"""

import re
import sys
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, TypeAlias

from ..errors import ProblemError

Headers: TypeAlias = list[tuple[bytes, bytes]]

HEADER_OVERHEAD_BYTES = 32
"""More than a header line or a request line has besides name, value and URL."""

HOST_PATTERN = re.compile(
    rb"(\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|([\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(:[0-9]*)?", re.ASCII
)
"""RFC 3986, section 3.2.2, without IPvFuture, which nobody uses."""

ABSOLUTE_FORM_PATTERN = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE)
"""RFC 9112, section 3.2.2. The groups are the authority, and the path with the query."""

HTTP_VERSIONS = {"1.0", "1.1"}


@dataclass(frozen=True)
class HttpLimits:
    """The limits that Gunicorn's settings control. Sizes are in bytes.

    An idle connection takes 13 KB of memory, so all of them take 78 MB.
    """

    request_line: int = 4094
    header_count: int = 100
    header_size: int = 8190
    connections: int = 6000

    @classmethod
    def from_gunicorn(cls, settings: Any) -> "HttpLimits":
        """The limits of a Gunicorn configuration, in which 0 is no limit."""
        return cls(
            request_line=settings.limit_request_line or sys.maxsize,
            header_count=settings.limit_request_fields or sys.maxsize,
            header_size=settings.limit_request_field_size or sys.maxsize,
            connections=settings.worker_connections or sys.maxsize,
        )


def find_host(headers: Headers, version: str) -> bytes | None:
    """The Host header, which HTTP/1.1 requires. Checks the version and the transfer coding too."""
    if version not in HTTP_VERSIONS:
        raise ProblemError(505, "Use HTTP/1.1.")
    host = None
    for name, value in headers:
        if name == b"host":
            if host is not None:
                raise ProblemError(400, "Send only one Host header.")
            host = value
        elif name == b"transfer-encoding" and (version == "1.0" or value.lower() != b"chunked"):
            raise ProblemError(501, "The only transfer coding is chunked, with HTTP/1.1.")
    if host is None and version == "1.1":
        raise ProblemError(400, "Send a Host header.")
    return host


def check_host(host: bytes) -> None:
    """Raise ProblemError unless `host` is a host name or an address, with or without a port."""
    parts = HOST_PATTERN.fullmatch(host)
    if parts is None or not (parts["ipv6"] is None or _is_ipv6_address(parts["ipv6"])):
        raise ProblemError(400, "The host is not valid.")


def _is_ipv6_address(text: bytes) -> bool:
    try:
        IPv6Address(text.decode())
    except ValueError:
        return False
    return True


def split_absolute_url(url: bytes) -> tuple[bytes, bytes]:
    """The host and the path of a request target such as `http://host/path`."""
    absolute = ABSOLUTE_FORM_PATTERN.fullmatch(url)
    if absolute is None:
        raise ProblemError(400, "The request target is not a path.")
    host: bytes = absolute[1]
    path: bytes = absolute[2]
    return host, path if path.startswith(b"/") else b"/" + path


def check_head_size(method: bytes, url: bytes, headers: Headers, limits: HttpLimits) -> None:
    """Raise ProblemError if a line of the head, or the number of its lines, is too large."""
    if len(headers) > limits.header_count:
        raise ProblemError(431, f"The request has more than {limits.header_count} headers.")
    if len(method) + len(url) + len(b"  HTTP/1.1") > limits.request_line:
        raise ProblemError(414, f"The request line exceeds {limits.request_line} bytes.")
    for name, value in headers:
        if len(name) + len(value) > limits.header_size:
            raise ProblemError(431, f"A header exceeds {limits.header_size} bytes.")


def check_incomplete_line_size(
    pending_bytes: int, url: bytes, headers: Headers, limits: HttpLimits
) -> None:
    """Raise ProblemError if the last line so far is too long.

    `pending_bytes` are those of the head that were received. Chunk extensions count as well.
    """
    incomplete_bytes = pending_bytes - len(url)
    for name, value in headers:
        incomplete_bytes -= len(name) + len(value) + HEADER_OVERHEAD_BYTES
    if incomplete_bytes > limits.header_size + HEADER_OVERHEAD_BYTES:
        raise ProblemError(431, f"A header exceeds {limits.header_size} bytes.")
