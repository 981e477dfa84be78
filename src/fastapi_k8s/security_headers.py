"""Headers that every response gets, as OWASP's REST Security Cheat Sheet recommends.

https://cheatsheetseries.owasp.org/cheatsheets/REST_Security_Cheat_Sheet.html#security-headers.
docs/decisions/0022-security-headers.md explains the choice.
"""

DEFAULT_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
)


def add_default_headers(headers: list[tuple[bytes, bytes]]) -> None:
    """Add the default headers to those of a response, except those that it has already."""
    values = dict(headers)
    headers += [header for header in DEFAULT_HEADERS if header[0] not in values]
